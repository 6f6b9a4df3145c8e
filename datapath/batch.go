// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"

	"github.com/cilium/ebpf"

	"github.com/weft-net/weft/bpf"
)

// rowMap is a BPF map with the types of its rows, written in batches.
type rowMap[K comparable, V any] struct {
	name string
	m    *ebpf.Map
}

// put writes rows and returns the errors by index, nil if there are none. If the batch stops, the
// rest goes row by row, so that one row that does not fit holds no other up.
func (r rowMap[K, V]) put(keys []K, values []V) map[int]error {
	if len(keys) == 0 {
		return nil
	}
	done, err := r.m.BatchUpdate(keys, values, nil)
	if err == nil {
		return nil
	}
	var errs map[int]error
	for i := min(done, len(keys)); i < len(keys); i++ {
		if err := r.m.Put(keys[i], values[i]); err != nil {
			if errs == nil {
				errs = map[int]error{}
			}
			errs[i] = bpf.WriteError(r.name, r.m, err)
		}
	}
	return errs
}

// delete removes rows; what is not there is no error.
func (r rowMap[K, V]) delete(keys []K) map[int]error {
	if len(keys) == 0 {
		return nil
	}
	done, err := r.m.BatchDelete(keys, nil)
	if err == nil {
		return nil
	}
	var errs map[int]error
	for i := min(done, len(keys)); i < len(keys); i++ {
		if err := r.m.Delete(keys[i]); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			if errs == nil {
				errs = map[int]error{}
			}
			errs[i] = bpf.WriteError(r.name, r.m, err)
		}
	}
	return errs
}

// Sizes of the buffers of a walk. The first is enough unless many rows fall into one hash bucket.
const (
	walkBatch    = 4096
	maxWalkBatch = 1 << 20
)

// each calls f for every row, in batches, until f returns false. A row that comes or goes meanwhile
// may be missed or come twice.
func (r rowMap[K, V]) each(f func(keys []K, values []V) bool) error {
	for size := walkBatch; ; size *= 8 {
		more, err := r.walk(size, f)
		if err == nil || !errors.Is(err, errBucket) || more || size >= maxWalkBatch {
			return err
		}
	}
}

var errBucket = errors.New("a hash bucket is larger than the buffer")

// walk is each with one size of the buffer. It says whether f has been called.
func (r rowMap[K, V]) walk(size int, f func(keys []K, values []V) bool) (called bool, err error) {
	size = min(size, int(r.m.MaxEntries()))
	keys, values := make([]K, size), make([]V, size)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := r.m.BatchLookup(&cursor, keys, values, nil)
		end := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !end {
			if isNoSpace(err) {
				err = errBucket
			}
			return called, bpf.WriteError(r.name, r.m, err)
		}
		if n > 0 {
			called = true
			if !f(keys[:n], values[:n]) {
				return called, nil
			}
		}
		if end {
			return called, nil
		}
	}
}
