// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// disk keeps one file per endpoint, <dir>/<id>.json. A file is replaced by rename,
// so that it is always one whole version.
type disk struct{ dir string }

// recordVersion is in every file; a file with a higher one is not read.
const recordVersion = 1

type record struct {
	Version int `json:"version"`
	Endpoint
}

func (d disk) path(id ID) string { return filepath.Join(d.dir, strconv.Itoa(int(id))+".json") }

// save makes e the version on disk. The rename is the commit point.
func (d disk) save(e Endpoint) (err error) {
	data, err := json.MarshalIndent(record{recordVersion, e}, "", " ")
	if err != nil {
		return fmt.Errorf("keep endpoint: %w", err)
	}
	f, err := os.CreateTemp(d.dir, ".new-*")
	if err != nil {
		return fmt.Errorf("keep endpoint: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(append(data, '\n')); err != nil {
		return fmt.Errorf("keep endpoint: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("keep endpoint: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("keep endpoint: %w", err)
	}
	if err := os.Rename(f.Name(), d.path(e.ID)); err != nil {
		return fmt.Errorf("keep endpoint: %w", err)
	}
	return d.sync()
}

// sync makes renames and removals in the directory durable.
func (d disk) sync() error {
	f, err := os.Open(d.dir)
	if err != nil {
		return fmt.Errorf("keep endpoint: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("keep endpoint: %w", err)
	}
	return nil
}

func (d disk) remove(id ID) error {
	if err := os.Remove(d.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget endpoint: %w", err)
	}
	return d.sync()
}

// A RecordError says that a file cannot be read, or is not there although the kernel
// has its endpoint. The endpoint goes on in the kernel as it is; nothing is pruned
// while there is such a file.
type RecordError struct {
	Path string
	ID   ID // 0: the name says nothing
	Err  error
}

func (e *RecordError) Error() string { return fmt.Sprintf("endpoint file %s: %v", e.Path, e.Err) }
func (e *RecordError) Unwrap() error { return e.Err }

// load reads all endpoints, and says which files it could not read. It makes the
// directory where there is none.
func (d disk) load() (found []Endpoint, broken []*RecordError, err error) {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("state directory: %w", err)
	}
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("state directory: %w", err)
	}
	for _, entry := range entries {
		path := filepath.Join(d.dir, entry.Name())
		if strings.HasPrefix(entry.Name(), ".new-") { // of a save that did not finish
			if err := os.Remove(path); err != nil {
				return nil, nil, fmt.Errorf("state directory: %w", err)
			}
			continue
		}
		base, isRecord := strings.CutSuffix(entry.Name(), ".json")
		if !isRecord {
			continue
		}
		n, err := strconv.ParseUint(base, 10, 16)
		if err != nil || n == 0 {
			broken = append(broken, &RecordError{Path: path, Err: errors.New("its name is not an endpoint's number")})
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			broken = append(broken, &RecordError{path, ID(n), err})
			continue
		}
		e, err := decodeRecord(ID(n), data)
		if err != nil {
			broken = append(broken, &RecordError{path, ID(n), err})
			continue
		}
		found = append(found, e)
	}
	return found, broken, nil
}

// decodeRecord reads the bytes of a file and checks that they can be used.
func decodeRecord(id ID, data []byte) (Endpoint, error) {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return Endpoint{}, err
	}
	switch {
	case r.Version != recordVersion:
		return Endpoint{}, fmt.Errorf("version %d, this agent reads %d", r.Version, recordVersion)
	case r.ID != id:
		return Endpoint{}, fmt.Errorf("is of endpoint %d", r.ID)
	case r.Phase != Creating && r.Phase != Live && r.Phase != Deleting:
		return Endpoint{}, fmt.Errorf("phase %q is unknown", r.Phase)
	case len(r.Addresses) == 0:
		return Endpoint{}, errors.New("has no address")
	}
	spec := Spec{
		Name: r.FullName(), NetNS: r.NetNS, Interface: r.Interface, Labels: r.Labels, NamedPorts: r.NamedPorts,
		ServiceAccount: r.ServiceAccount, Addresses: r.Addresses,
	}
	if err := validate(&spec); err != nil {
		return Endpoint{}, err
	}
	return r.Endpoint, nil
}
