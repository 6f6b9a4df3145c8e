// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// lineageMagic begins the file of a lineage, with the version of its format.
const lineageMagic = "weft-lineage 1 "

// fileLineage is the lineage as it stands on disk.
type fileLineage struct {
	ClusterID uint64 `json:"clusterID"`
	Epoch     string `json:"epoch,omitempty"`
	Revision  int64  `json:"revision"`
	Key       string `json:"key,omitempty"`
	Mod       int64  `json:"mod,omitempty"`
	Hash      uint64 `json:"hash,omitempty"`
	Deleted   bool   `json:"deleted,omitempty"`
	At        int64  `json:"at,omitempty"`
}

// encodeLineage writes a file: one line with the version and the checksum, then JSON.
func encodeLineage(l lineage) ([]byte, error) {
	body, err := json.Marshal(fileLineage{
		l.clusterID, l.epoch, l.revision, l.witness.key, l.witness.mod, l.witness.hash, l.witness.deleted, l.witness.at,
	})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	return append([]byte(lineageMagic+hex.EncodeToString(sum[:])+"\n"), body...), nil
}

// decodeLineage is the inverse of encodeLineage.
func decodeLineage(b []byte) (lineage, error) {
	head, body, _ := bytes.Cut(b, []byte("\n"))
	sum := sha256.Sum256(body)
	if want := lineageMagic + hex.EncodeToString(sum[:]); string(head) != want {
		return lineage{}, errors.New("the checksum or the version is another one")
	}
	var f fileLineage
	if err := json.Unmarshal(body, &f); err != nil {
		return lineage{}, err
	}
	if f.Revision <= 0 || f.Mod < 0 || f.Mod > 0 && f.Key == "" {
		return lineage{}, errors.New("it names no revision")
	}
	return lineage{
		clusterID: f.ClusterID, epoch: f.Epoch, revision: f.Revision,
		witness: witness{key: f.Key, mod: f.Mod, hash: f.Hash, deleted: f.Deleted, at: f.At},
	}, nil
}

// readLineage reads the file. One that is not there is no error: the bool is false then.
func readLineage(path string) (lineage, bool, error) {
	if path == "" {
		return lineage{}, false, nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return lineage{}, false, nil
	}
	if err == nil {
		var l lineage
		if l, err = decodeLineage(b); err == nil {
			return l, true, nil
		}
	}
	return lineage{}, false, fmt.Errorf("lineage in %s: %w", path, err)
}

// writeLineage replaces the file in one step.
func writeLineage(path string, l lineage) (err error) {
	b, err := encodeLineage(l)
	if err != nil {
		return fmt.Errorf("lineage to %s: %w", path, err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("lineage to %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
			err = fmt.Errorf("lineage to %s: %w", path, err)
		}
	}()
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path) // the commit point
}
