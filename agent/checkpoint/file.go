// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Version is the one that is written. A file of a later one is refused.
const Version = 1

// MaxSize bounds a file, in bytes: about two million rows. What is larger is neither written nor read.
const MaxSize = 1 << 29

// magic is what each file begins with.
const magic = "weft checkpoint\n"

// Reasons why a file is refused.
var (
	// ErrForeign: the file is no checkpoint, or one of another store.
	ErrForeign = errors.New("not a checkpoint of this store")
	// ErrVersion: a later version of weft wrote the file.
	ErrVersion = errors.New("written by a later version")
	// ErrDamaged: the file is not as it was written.
	ErrDamaged = errors.New("damaged")
	// ErrTooLarge: the file exceeds MaxSize.
	ErrTooLarge = errors.New("too large")
)

// Header says whose rows a file has.
type Header struct {
	// Cluster and ClusterID are those of the store.
	Cluster   string
	ClusterID uint32
	// At is when the rows were last known to be those of the store.
	At time.Time
}

// Row is one key as it stood in the store.
type Row struct {
	Key    string // without the prefix of its kind
	Value  []byte
	Origin int64 // revision of the store in which it was last written
}

// File is what was read.
type File struct {
	Header
	// Tables holds the rows of each table by its name. Values share the file's memory.
	Tables map[string][]Row
}

// Rows returns the number of rows of all tables.
func (f *File) Rows() (n int) {
	for _, rows := range f.Tables {
		n += len(rows)
	}
	return n
}

// Read reads the checkpoint of a cluster's store. The error is fs.ErrNotExist where there is none,
// else one of this package or of the disk.
func Read(path, cluster string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	file, err := Decode(b)
	if err == nil && file.Cluster != cluster {
		err = fmt.Errorf("%w: it is of cluster %q", ErrForeign, file.Cluster)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return file, nil
}

// Refused tells whether an error of Read is one of the file's content, which no second try mends.
func Refused(err error) bool {
	return errors.Is(err, ErrForeign) || errors.Is(err, ErrVersion) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrTooLarge)
}
