// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// memory is what an operator knows of its store: by what to recognise it, and the last good copy
// of the rows that nobody else could write again. Rows are raw, so that members that this version
// does not know survive.
type memory struct {
	Cluster   string `json:"cluster"`
	ClusterID uint64 `json:"etcd-cluster-id"`
	// Epoch is the value of the epoch's key, "" if there was none.
	Epoch    string    `json:"epoch"`
	Revision int64     `json:"revision"` // the newest one seen
	At       time.Time `json:"at"`       // when
	// Witness is the last heartbeat seen, Newest the last put among Rows that stand in the store; a
	// revision of 0 means none.
	Witness witness           `json:"witness"`
	Newest  witness           `json:"newest,omitzero"`
	Rows    map[string][]byte `json:"rows"`
	// Held are keys of Rows that the store lacks without a deletion that somebody meant.
	Held map[string]bool `json:"held,omitempty"`
	// Nodes is how many node rows the cluster had, Names of which nodes. A copy of an older version has
	// no names.
	Nodes int             `json:"nodes"`
	Names map[string]bool `json:"node-names,omitempty"`
	// HoldLeft is how long the hold lasts while the store answers; zero: there is none, or its time is
	// over. HeldAt is the revision at which it was seen what is missing.
	HoldLeft time.Duration `json:"hold-left,omitzero"`
	HeldAt   int64         `json:"held-at,omitzero"`
}

type witness struct {
	Key      string `json:"key,omitzero"`
	Revision int64  `json:"revision"`
	Value    []byte `json:"value"`
}

const (
	memoryFile    = "operator-memory"
	memoryMagic   = "weft-operator-memory 1 " // the version is in it
	maxMemoryFile = 256 << 20
)

func encodeMemory(m memory) ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("memory: %w", err)
	}
	sum := sha256.Sum256(b)
	return append([]byte(memoryMagic+hex.EncodeToString(sum[:])+"\n"), b...), nil
}

func decodeMemory(b []byte) (memory, error) {
	head, body, ok := bytes.Cut(b, []byte("\n"))
	want, magic := bytes.CutPrefix(head, []byte(memoryMagic))
	if !ok || !magic {
		return memory{}, errors.New("memory: not one of this version")
	}
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != string(want) {
		return memory{}, errors.New("memory: the checksum is wrong")
	}
	var m memory
	if err := json.Unmarshal(body, &m); err != nil {
		return memory{}, fmt.Errorf("memory: %w", err)
	}
	for key := range m.Held {
		if _, ok := m.Rows[key]; !ok {
			return memory{}, fmt.Errorf("memory: held key %q has no row", key)
		}
	}
	return m, nil
}

// loadMemory reads the copy of an earlier life. No file is no error and no memory.
func loadMemory(dir string) (m memory, known bool, err error) {
	file := filepath.Join(dir, memoryFile)
	if st, err := os.Stat(file); err == nil && st.Size() > maxMemoryFile {
		return memory{}, false, fmt.Errorf("memory %s: %d bytes are too many", file, st.Size())
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return memory{}, false, nil
	}
	if err != nil {
		return memory{}, false, fmt.Errorf("memory: %w", err)
	}
	m, err = decodeMemory(b)
	return m, err == nil, err
}

// saveMemory replaces the copy. The commit point is the rename.
func saveMemory(dir string, m memory) (err error) {
	b, err := encodeMemory(m)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, memoryFile+".*")
	if err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("memory: %w", err), os.Remove(f.Name()))
		}
	}()
	_, werr := f.Write(b)
	if err := errors.Join(werr, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, memoryFile))
}
