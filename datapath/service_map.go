// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
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
//   - fewer: the last backends move into the holes, then the count goes down, and the slots at the
//     end are deleted only after every program that may have read the old count has ended.
//
// The order of slots is therefore the maps' own (service.Place), and a backend that stays keeps its
// slot.
type serviceOps struct {
	frontends rowMap[bpf.FrontendKey, bpf.Frontend]
	backends  rowMap[bpf.BackendKey, bpf.Backend]
	// ended is told which backends a frontend lost altogether.
	ended func([]goneBackend)

	mu      sync.Mutex
	known   map[service.Frontend]*knownService
	numbers *service.Numbers
	names   map[uint32]service.Frontend // by number, also while that rests
	resting map[uint32]bool             // false: since the sweep that runs now
	vips    map[netip.Addr]int          // frontends of an address
}

// knownService is what the kernel has of one frontend.
type knownService struct {
	id    uint32
	slots []netip.AddrPort
	// serving are all backends that may have flows, also those that get no new ones.
	serving map[netip.AddrPort]struct{}
}

// maxService is the highest number of a service: a flow entry has 16 bits for it.
const maxService = 65535

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

// openServices reads what the kernel has.
func openServices(o *bpf.Objects, ended func([]goneBackend)) (*serviceOps, error) {
	ops := &serviceOps{
		frontends: rowMap[bpf.FrontendKey, bpf.Frontend]{"frontends", o.Frontends},
		backends:  rowMap[bpf.BackendKey, bpf.Backend]{"backends", o.Backends},
		ended:     ended,
		known:     map[service.Frontend]*knownService{},
		numbers:   service.NewNumbers(maxService),
		names:     map[uint32]service.Frontend{},
		resting:   map[uint32]bool{},
		vips:      map[netip.Addr]int{},
	}
	var stale []bpf.FrontendKey
	err := ops.frontends.each(func(keys []bpf.FrontendKey, values []bpf.Frontend) bool {
		for i, k := range keys {
			if k.Port == 0 && k.Protocol == 0 {
				continue
			}
			f := frontendOf(k)
			if ops.numbers.Restore(f, service.Number(values[i].Service)) != nil {
				stale = append(stale, k) // a row that was never ours
				continue
			}
			ops.known[f] = &knownService{
				id:      values[i].Service,
				slots:   make([]netip.AddrPort, values[i].Count),
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
	for _, err := range ops.frontends.delete(stale) {
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
			s.slots[k.Slot] = backendOf(values[i])
			s.serving[s.slots[k.Slot]] = struct{}{}
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

// free gives numbers back that no flow names any more. used are those that a sweep has met; what
// was released while it ran rests until the next one has ended.
func (ops *serviceOps) free(used map[uint16]bool) {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	for id := range used {
		if _, known := ops.names[uint32(id)]; !known && !ops.resting[uint32(id)] {
			// Of a service that an earlier run removed.
			ops.numbers.Rest(service.Number(id))
			ops.resting[uint32(id)] = true
		}
	}
	for id, whole := range ops.resting {
		switch {
		case !whole:
			ops.resting[id] = true
		case !used[uint16(id)]:
			ops.numbers.Free(service.Number(id))
			delete(ops.resting, id)
			delete(ops.names, id)
		}
	}
}

// releaseLocked lets a frontend's number rest.
func (ops *serviceOps) releaseLocked(f service.Frontend) {
	if id := uint32(ops.numbers.Release(f)); id != 0 {
		ops.resting[id] = false
	}
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
