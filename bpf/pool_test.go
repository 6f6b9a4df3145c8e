// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// idle holds what tests have loaded and do not use any more, by its configuration: the verifier takes
// longer with the programs than most tests do. Their maps are empty. Tests of this package run one after
// the other.
var idle = map[string][]*Objects{}

// load gives one test the programs of a configuration, with empty maps.
func load(t testing.TB, cfg Config) *Objects {
	t.Helper()
	kind := fmt.Sprintf("%+v", cfg)
	var objects *Objects
	if there := idle[kind]; len(there) > 0 {
		objects, idle[kind] = there[len(there)-1], there[:len(there)-1]
	} else {
		objects = loadAnew(t, cfg)
	}
	// The first of the test's cleanups, which runs when nothing of it is attached any more.
	t.Cleanup(func() {
		if err := empty(objects); err != nil {
			objects.Close()
			t.Errorf("empty the maps: %v", err)
			return
		}
		idle[kind] = append(idle[kind], objects)
	})
	return objects
}

// empty makes the maps what they are after loading.
func empty(objects *Objects) error {
	var errs []error
	all := reflect.ValueOf(objects.weftMaps) // generated: a field for each map
	for i := range all.NumField() {
		if err := emptyMap(all.Field(i).Interface().(*ebpf.Map)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", all.Type().Field(i).Name, err))
		}
	}
	return errors.Join(errs...)
}

func emptyMap(m *ebpf.Map) error {
	switch m.Type() {
	case ebpf.RingBuf:
		return drain(m)
	case ebpf.Array, ebpf.PerCPUArray:
		var zero any = make([]byte, m.ValueSize())
		if m.Type() == ebpf.PerCPUArray {
			zero = slices.Repeat([][]byte{make([]byte, m.ValueSize())}, ebpf.MustPossibleCPU())
		}
		for i := range m.MaxEntries() {
			if err := m.Put(i, zero); err != nil {
				return err
			}
		}
		return nil
	case ebpf.Hash, ebpf.LRUHash, ebpf.LPMTrie:
		key := make([]byte, m.KeySize())
		for {
			err := m.NextKey(nil, &key)
			if errors.Is(err, ebpf.ErrKeyNotExist) {
				return nil
			}
			if err == nil {
				err = m.Delete(key)
			}
			// The least recently used may go by itself.
			if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return err
			}
		}
	default:
		return fmt.Errorf("how to empty a %s is not known", m.Type())
	}
}

func drain(m *ebpf.Map) error {
	reader, err := ringbuf.NewReader(m)
	if err != nil {
		return err
	}
	defer reader.Close()
	reader.SetDeadline(time.Unix(1, 0)) // what is there, no waiting
	for {
		if _, err := reader.Read(); errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
