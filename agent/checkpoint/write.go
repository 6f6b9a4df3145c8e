// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
)

// Writer writes the body of a file. Its methods remember the first error; Write returns it.
type Writer struct {
	to   *bufio.Writer
	sum  hash.Hash
	size int64
	buf  []byte
	err  error
}

// Write replaces the file at path by one with what fill writes, and returns its size in bytes. The
// rename is the commit point: whatever breaks before it leaves the file as it was.
func Write(path string, h Header, fill func(*Writer)) (size int64, err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, err
	}
	// One name for all attempts, so that a crash leaves at most one half-written file.
	f, err := os.OpenFile(path+temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() {
		if f != nil {
			f.Close()
		}
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
			os.Remove(path + temporary)
		}
	}()
	w, err := Encode(f, h, fill)
	if err != nil {
		return 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	err = f.Close()
	f = nil
	if err != nil {
		return 0, err
	}
	if err := os.Rename(path+temporary, path); err != nil {
		return 0, err
	}
	return w, syncDir(dir)
}

// temporary ends the name of a file that is being written.
const temporary = ".new"

// Aside renames a file that was refused, so that a new one can be written and nothing is lost. It
// returns the new name; an older one of that name is replaced.
func Aside(path string) (string, error) {
	to := path + ".refused"
	if err := os.Rename(path, to); err != nil {
		return "", err
	}
	return to, syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Encode writes a file's bytes to out and returns how many.
func Encode(out io.Writer, h Header, fill func(*Writer)) (size int64, err error) {
	w := &Writer{sum: sha256.New()}
	w.to = bufio.NewWriterSize(out, 1<<16)
	w.buf = append(w.buf, magic...)
	w.buf = binary.BigEndian.AppendUint16(w.buf, Version)
	w.text(h.Cluster)
	w.buf = binary.AppendUvarint(w.buf, uint64(h.ClusterID))
	w.buf = binary.AppendVarint(w.buf, h.At.UnixNano())
	w.flush()
	fill(w)
	w.buf = append(w.buf, itemEnd)
	w.flush()
	if w.err == nil {
		_, w.err = w.to.Write(w.sum.Sum(nil))
	}
	if w.err == nil {
		w.err = w.to.Flush()
	}
	return w.size + sha256.Size, w.err
}

// Table begins a table. A name must come once.
func (w *Writer) Table(name string) {
	w.buf = append(w.buf, itemTable)
	w.text(name)
	w.flush()
}

// Row writes a row of the table that was begun last.
func (w *Writer) Row(r Row) {
	w.buf = append(w.buf, itemRow)
	w.text(r.Key)
	w.buf = binary.AppendVarint(w.buf, r.Origin)
	w.buf = binary.AppendUvarint(w.buf, uint64(len(r.Value)))
	w.buf = append(w.buf, r.Value...)
	w.flush()
}

func (w *Writer) text(s string) {
	w.buf = binary.AppendUvarint(w.buf, uint64(len(s)))
	w.buf = append(w.buf, s...)
}

func (w *Writer) flush() {
	w.size += int64(len(w.buf))
	if w.err == nil && w.size > MaxSize-sha256.Size {
		w.err = fmt.Errorf("%w: more than %d bytes", ErrTooLarge, MaxSize)
	}
	if w.err == nil {
		w.sum.Write(w.buf)
		_, w.err = w.to.Write(w.buf)
	}
	w.buf = w.buf[:0]
}
