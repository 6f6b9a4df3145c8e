// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// idle holds what tests have loaded and do not use any more, by its configuration: the verifier takes
// longer with the programs than most tests do. Maps that are taken from it are empty.
var idle struct {
	sync.Mutex
	objects map[string][]*Objects
}

// load gives one test the programs of a configuration, with empty maps.
func load(t testing.TB, cfg Config) *Objects {
	t.Helper()
	kind := fmt.Sprintf("%+v", cfg)
	objects := takeIdle(kind)
	if objects == nil {
		objects = loadAnew(t, cfg)
	}
	// The first of the test's cleanups, which runs when nothing of it is attached any more.
	t.Cleanup(func() {
		if err := empty(objects); err != nil {
			objects.Close()
			t.Errorf("empty the maps: %v", err)
			return
		}
		idle.Lock()
		defer idle.Unlock()
		if idle.objects == nil {
			idle.objects = map[string][]*Objects{}
		}
		idle.objects[kind] = append(idle.objects[kind], objects)
	})
	return objects
}

func takeIdle(kind string) *Objects {
	idle.Lock()
	defer idle.Unlock()
	there := idle.objects[kind]
	if len(there) == 0 {
		return nil
	}
	idle.objects[kind] = there[:len(there)-1]
	return there[len(there)-1]
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
	case ebpf.Array:
		zero := make([]byte, m.ValueSize())
		for i := range m.MaxEntries() {
			if err := m.Put(i, zero); err != nil {
				return err
			}
		}
		return nil
	case ebpf.PerCPUArray:
		zero := make([][]byte, ebpf.MustPossibleCPU())
		for i := range zero {
			zero[i] = make([]byte, m.ValueSize())
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
