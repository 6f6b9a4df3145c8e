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
	"io"
	"os"
	"path/filepath"
	"time"
)

const (
	// lineageMagic begins the file of a lineage, with the version of its format.
	lineageMagic = "weft-lineage 2 "
	// lineageMagic1 is of files whose witness is not known by its lease.
	lineageMagic1 = "weft-lineage 1 "
	// maxFile bounds what is read of a file, in bytes: millions of held keys.
	maxFile = 256 << 20
)

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
	Gone      string `json:"gone,omitempty"` // the key of the last deletion
	GoneMod   int64  `json:"goneMod,omitempty"`
	Clock     int64  `json:"clock,omitempty"` // of the guard, in nanoseconds
}

// seal puts the version and the checksum before the JSON of a file, in one line.
func seal(magic string, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	return append([]byte(magic+hex.EncodeToString(sum[:])+"\n"), body...), nil
}

// unseal is the inverse of seal.
func unseal(magic string, b []byte, v any) error {
	head, body, _ := bytes.Cut(b, []byte("\n"))
	sum := sha256.Sum256(body)
	if want := magic + hex.EncodeToString(sum[:]); string(head) != want {
		return errors.New("the checksum or the version is another one")
	}
	return json.Unmarshal(body, v)
}

// encodeLineage writes the file of a lineage, with the clock of the guard.
func encodeLineage(l lineage, clock time.Duration) ([]byte, error) {
	w := l.witness
	return seal(lineageMagic, fileLineage{
		l.clusterID, l.epoch, l.revision, w.key, w.mod, w.hash, w.deleted, w.at, l.gone.key, l.gone.mod, int64(clock),
	})
}

// decodeLineage is the inverse of encodeLineage. A file of version 1 has no witness that is of use;
// cluster id, epoch and revision tell what they tell.
func decodeLineage(b []byte) (lineage, time.Duration, error) {
	var f fileLineage
	magic, old := lineageMagic, bytes.HasPrefix(b, []byte(lineageMagic1))
	if old {
		magic = lineageMagic1
	}
	if err := unseal(magic, b, &f); err != nil {
		return lineage{}, 0, err
	}
	if f.Revision <= 0 || f.Mod < 0 || f.Mod > 0 && f.Key == "" || f.GoneMod < 0 || f.GoneMod > 0 && f.Gone == "" || f.Clock < 0 {
		return lineage{}, 0, errors.New("it names no revision, or one that cannot be")
	}
	l := lineage{clusterID: f.ClusterID, epoch: f.Epoch, revision: f.Revision}
	if !old {
		l.witness = witness{key: f.Key, mod: f.Mod, hash: f.Hash, deleted: f.Deleted, at: f.At}
		l.gone = tombstone{f.Gone, f.GoneMod}
	}
	return l, time.Duration(f.Clock), nil
}

// readLineage reads the file. One that is not there is no error: the bool is false then.
func readLineage(path string) (lineage, time.Duration, bool, error) {
	if path == "" {
		return lineage{}, 0, false, nil
	}
	b, err := readWhole(path)
	if errors.Is(err, os.ErrNotExist) {
		return lineage{}, 0, false, nil
	}
	if err == nil {
		var l lineage
		var clock time.Duration
		if l, clock, err = decodeLineage(b); err == nil {
			return l, clock, true, nil
		}
	}
	return lineage{}, 0, false, fmt.Errorf("lineage in %s: %w", path, err)
}

// readWhole reads a file, unless it is larger than any of ours.
func readWhole(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxFile {
		return nil, fmt.Errorf("it is no file of at most %d MiB, but %s of %d bytes: remove it", maxFile>>20, st.Mode(), st.Size())
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// writeLineage replaces the file in one step.
func writeLineage(path string, l lineage, clock time.Duration) error {
	b, err := encodeLineage(l, clock)
	if err == nil {
		err = replaceFile(path, b)
	}
	if err != nil {
		return fmt.Errorf("lineage to %s: %w", path, err)
	}
	return nil
}

// replaceFile writes a file in one step, and makes the directory it is in.
func replaceFile(path string, b []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
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
