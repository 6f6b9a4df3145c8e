// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"time"
)

// What an item of the body is, after the header:
//
//	file   = magic, version (2 bytes, high first), header, item..., end, SHA-256 of all before it
//	header = text cluster, uvarint cluster id, varint unix nanoseconds
//	item   = table, text name | row, text key, varint origin, text value
//	text   = uvarint length, bytes
//
// A row belongs to the table before it.
const (
	itemEnd   = 0
	itemTable = 1
	itemRow   = 2
)

// Decode reads the bytes of a file. The error is one of this package.
func Decode(b []byte) (*File, error) {
	const head = len(magic) + 2
	switch {
	case len(b) > MaxSize:
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, MaxSize)
	case !strings.HasPrefix(string(b[:min(len(b), len(magic))]), magic):
		return nil, ErrForeign
	case len(b) < head+sha256.Size:
		return nil, fmt.Errorf("%w: only %d bytes", ErrDamaged, len(b))
	}
	// The version goes first: a later one may have another checksum.
	if v := binary.BigEndian.Uint16(b[len(magic):]); v != Version {
		return nil, fmt.Errorf("%w: %d, this one reads %d", ErrVersion, v, Version)
	}
	body := b[: len(b)-sha256.Size : len(b)-sha256.Size]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], b[len(body):]) {
		return nil, fmt.Errorf("%w: the checksum is another", ErrDamaged)
	}
	r := reader{b: body[head:]}
	f := &File{Tables: map[string][]Row{}}
	f.Cluster = string(r.text())
	id := r.unsigned()
	f.At = time.Unix(0, r.signed())
	if id > math.MaxUint32 {
		r.bad = true
	}
	f.ClusterID = uint32(id)
	table, within := "", false
	for !r.bad {
		switch r.next() {
		case itemEnd:
			if r.bad || len(r.b) > 0 {
				return nil, fmt.Errorf("%w: it does not end where it should", ErrDamaged)
			}
			return f, nil
		case itemTable:
			table, within = string(r.text()), true
			if _, twice := f.Tables[table]; twice {
				r.bad = true
			} else if !r.bad {
				f.Tables[table] = nil
			}
		case itemRow:
			row := Row{Key: string(r.text()), Origin: r.signed(), Value: r.text()}
			if r.bad = r.bad || !within; !r.bad {
				f.Tables[table] = append(f.Tables[table], row)
			}
		default:
			r.bad = true
		}
	}
	return nil, fmt.Errorf("%w: an item is none", ErrDamaged)
}

// reader takes items off the front of bytes. After a bad one all that it returns means nothing.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) next() byte {
	if r.bad || len(r.b) == 0 {
		r.bad = true
		return itemEnd
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) unsigned() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad = r.bad || n <= 0; r.bad {
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) signed() int64 {
	v, n := binary.Varint(r.b)
	if r.bad = r.bad || n <= 0; r.bad {
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) text() []byte {
	n := r.unsigned()
	if r.bad = r.bad || n > uint64(len(r.b)); r.bad {
		return nil
	}
	t := r.b[:n:n]
	r.b = r.b[n:]
	return t
}
