// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/service"
	"github.com/weft-net/weft/state"
)

// serviceOps writes frontends and their backends. A lookup at any moment finds either the backends
// from before or those from after a change, never a hole:
//
//   - more backends: their slots are written, then the frontend's count;
//   - fewer: the last backend moves into the hole, then the count goes down, and the slot at the end
//     is deleted only after every program that may have read the old count has ended.
//
// The order of slots is therefore the maps' own, and a backend that stays keeps its slot.
type serviceOps struct {
	frontends rowMap[bpf.FrontendKey, bpf.Frontend]
	backends  rowMap[bpf.BackendKey, bpf.Backend]
	// ended is told which backends a frontend lost altogether.
	ended func([]goneBackend)

	mu    sync.Mutex
	known map[service.Frontend]*knownService
	names map[uint32]service.Frontend // by service id
	vips  map[netip.Addr]int          // frontends of an address
	next  uint32                      // where the search for a free id begins
}

// knownService is what the kernel has of one frontend.
type knownService struct {
	id    uint32
	slots []bpf.Backend
	// serving are all backends that may have flows, also those that get no new ones.
	serving map[netip.AddrPort]struct{}
}

// maxService is the highest service id: a flow entry has 16 bits for it.
const maxService = 65535

var errNoService = errors.New("no service id is left")

// frontendKey is the key of a frontend in the kernel.
func frontendKey(f service.Frontend) bpf.FrontendKey {
	return bpf.FrontendKey{
		Address:  bpf.Address(f.Addr.Addr()),
		Port:     bpf.Port(f.Addr.Port()),
		Protocol: uint8(f.Protocol),
	}
}

// vipKey is the key of the row that says: this address belongs to services.
func vipKey(a netip.Addr) bpf.FrontendKey { return bpf.FrontendKey{Address: bpf.Address(a)} }

func backendRow(a netip.AddrPort) bpf.Backend {
	return bpf.Backend{Address: bpf.Address(a.Addr()), Port: bpf.Port(a.Port())}
}

// arrange gives the slots that hold exactly want, with as few changes to have as possible: what
// stays keeps its place, what is new takes the place of what is gone, and holes are filled from the
// end.
func arrange(have, want []bpf.Backend) []bpf.Backend {
	missing := make(map[bpf.Backend]bool, len(want))
	for _, b := range want {
		missing[b] = true
	}
	slots := make([]bpf.Backend, len(have), max(len(have), len(want)))
	copy(slots, have)
	var holes []int
	for i, b := range slots {
		if missing[b] {
			delete(missing, b)
		} else {
			holes = append(holes, i)
		}
	}
	for _, b := range want { // in the order of want, so that every node does the same
		if !missing[b] {
			continue
		}
		delete(missing, b)
		if len(holes) > 0 {
			slots[holes[0]] = b
			holes = holes[1:]
		} else {
			slots = append(slots, b)
		}
	}
	for len(holes) > 0 {
		last := len(slots) - 1
		if hole := holes[len(holes)-1]; hole == last {
			holes = holes[:len(holes)-1]
		} else {
			slots[holes[0]] = slots[last]
			holes = holes[1:]
		}
		slots = slots[:last]
	}
	return slots
}

// openServices reads what the kernel has.
func openServices(o *bpf.Objects, ended func([]goneBackend)) (*serviceOps, error) {
	ops := &serviceOps{
		frontends: rowMap[bpf.FrontendKey, bpf.Frontend]{"frontends", o.Frontends},
		backends:  rowMap[bpf.BackendKey, bpf.Backend]{"backends", o.Backends},
		ended:     ended,
		known:     map[service.Frontend]*knownService{},
		names:     map[uint32]service.Frontend{},
		vips:      map[netip.Addr]int{},
		next:      1,
	}
	err := ops.frontends.each(func(keys []bpf.FrontendKey, values []bpf.Frontend) bool {
		for i, k := range keys {
			if k.Port == 0 && k.Protocol == 0 {
				continue
			}
			f := frontendOf(k)
			ops.known[f] = &knownService{
				id:      values[i].Service,
				slots:   make([]bpf.Backend, values[i].Count),
				serving: map[netip.AddrPort]struct{}{},
			}
			ops.names[values[i].Service] = f
			ops.vips[f.Addr.Addr()]++
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	return ops, ops.readBackends()
}

// readBackends fills the slots of the frontends that are known, and deletes rows beyond them, which
// an earlier run did not live to delete.
func (ops *serviceOps) readBackends() error {
	var stale []bpf.BackendKey
	err := ops.backends.each(func(keys []bpf.BackendKey, values []bpf.Backend) bool {
		for i, k := range keys {
			s := ops.known[ops.names[k.Service]]
			if s == nil || s.id != k.Service || k.Slot >= uint32(len(s.slots)) {
				stale = append(stale, k)
				continue
			}
			s.slots[k.Slot] = values[i]
			s.serving[backendOf(values[i])] = struct{}{}
		}
		return true
	})
	if err != nil {
		return err
	}
	for _, err := range ops.backends.delete(stale) {
		return err
	}
	return nil
}

func frontendOf(k bpf.FrontendKey) service.Frontend {
	return service.Frontend{
		Addr:     netip.AddrPortFrom(bpf.Addr(k.Address), bpf.Port(k.Port)),
		Protocol: protocolOf(k.Protocol),
	}
}

func backendOf(b bpf.Backend) netip.AddrPort {
	return netip.AddrPortFrom(bpf.Addr(b.Address), bpf.Port(b.Port))
}

// name is the frontend that has a service id in flows and events.
func (ops *serviceOps) name(id uint32) (service.Frontend, bool) {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	f, ok := ops.names[id]
	return f, ok
}

// takeIDLocked finds an id that no service has. Ids go round, so that one is used again late.
func (ops *serviceOps) takeIDLocked() (uint32, error) {
	for range maxService {
		id := ops.next
		ops.next++
		if ops.next > maxService {
			ops.next = 1
		}
		if _, used := ops.names[id]; !used {
			return id, nil
		}
	}
	return 0, &bpf.FullError{Map: ops.frontends.name, Size: maxService, Err: errNoService}
}

// Update implements state.Ops.
func (ops *serviceOps) Update(_ context.Context, rows []state.Row[service.Frontend, service.Service]) map[service.Frontend]error {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	w := serviceWrite{ops: ops, errs: map[service.Frontend]error{}}
	for _, r := range rows {
		w.plan(r.Key, r.Value)
	}
	w.commit()
	return w.errs
}

// Delete implements state.Ops.
func (ops *serviceOps) Delete(_ context.Context, keys []service.Frontend) map[service.Frontend]error {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	return ops.deleteLocked(keys)
}

// Prune implements state.Ops.
func (ops *serviceOps) Prune(_ context.Context, want func(service.Frontend) (service.Service, bool)) error {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	var stale []service.Frontend
	for f := range ops.known {
		if _, ok := want(f); !ok {
			stale = append(stale, f)
		}
	}
	for _, err := range ops.deleteLocked(stale) {
		return err
	}
	return nil
}
