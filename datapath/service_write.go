// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/service"
)

// serviceWrite is one batch of changes to services, in the order that leaves no hole.
type serviceWrite struct {
	ops  *serviceOps
	errs map[service.Frontend]error

	plans []*servicePlan
	ended []goneBackend
}

// servicePlan is one frontend's part of the batch.
type servicePlan struct {
	frontend service.Frontend
	known    *knownService
	isNew    bool
	slots    []netip.AddrPort
	serving  map[netip.AddrPort]struct{}
	failed   error
}

// plan takes in what one frontend should be.
func (w *serviceWrite) plan(f service.Frontend, s service.Service) {
	known := w.ops.known[f]
	isNew := known == nil
	if isNew {
		number, err := w.ops.numbers.Assign(f)
		if err != nil {
			w.errs[f] = err
			return
		}
		known = &knownService{id: uint32(number)}
		w.ops.names[known.id] = f
	}
	var slots []netip.AddrPort
	for _, b := range service.Place(known.slots, s.Backends[:s.Chosen]) {
		slots = append(slots, b.Addr)
	}
	serving := make(map[netip.AddrPort]struct{}, len(s.Backends))
	for _, b := range s.Backends {
		serving[b.Addr] = struct{}{}
	}
	w.plans = append(w.plans, &servicePlan{
		frontend: f,
		known:    known,
		isNew:    isNew,
		slots:    slots,
		serving:  serving,
	})
}

// commit writes the plans: slots that are new or different, then frontends, then, after every
// program that runs now has ended, it deletes slots beyond the count.
//
// A slot that is used and gets another backend is written before the count, too: a lookup finds the
// one or the other, and both are backends of the service.
func (w *serviceWrite) commit() {
	w.writeBackends()
	w.writeFrontends()
	var stale []bpf.BackendKey
	for _, p := range w.plans {
		if p.failed != nil {
			w.abandon(p)
			continue
		}
		for slot := len(p.slots); slot < len(p.known.slots); slot++ {
			stale = append(stale, bpf.BackendKey{Service: p.known.id, Slot: uint32(slot)})
		}
		w.note(p)
	}
	if len(stale) > 0 {
		awaitPrograms()
		// What stays behind is beyond every count, and deleted at the next start.
		w.ops.backends.delete(stale)
	}
	w.ops.ended(w.ended)
}

func (w *serviceWrite) writeBackends() {
	var keys []bpf.BackendKey
	var values []bpf.Backend
	var of []*servicePlan
	for _, p := range w.plans {
		for i, b := range p.slots {
			if i < len(p.known.slots) && p.known.slots[i] == b {
				continue
			}
			keys = append(keys, bpf.BackendKey{Service: p.known.id, Slot: uint32(i)})
			values = append(values, backendRow(b))
			of = append(of, p)
		}
	}
	for i, err := range w.ops.backends.put(keys, values) {
		of[i].failed = err
	}
}

func (w *serviceWrite) writeFrontends() {
	var keys []bpf.FrontendKey
	var values []bpf.Frontend
	var of []*servicePlan
	add := func(p *servicePlan, k bpf.FrontendKey, v bpf.Frontend) {
		keys, values, of = append(keys, k), append(values, v), append(of, p)
	}
	for _, p := range w.plans {
		if p.failed != nil {
			continue
		}
		if p.isNew && w.ops.vips[p.frontend.Addr.Addr()] == 0 {
			add(p, vipKey(p.frontend.Addr.Addr()), bpf.Frontend{})
		}
		if p.isNew || len(p.slots) != len(p.known.slots) {
			add(p, frontendKey(p.frontend), bpf.Frontend{Service: p.known.id, Count: uint32(len(p.slots))})
		}
	}
	for i, err := range w.ops.frontends.put(keys, values) {
		of[i].failed = err
	}
}

// note makes a plan that was written what is known.
func (w *serviceWrite) note(p *servicePlan) {
	for addr := range p.known.serving {
		if _, still := p.serving[addr]; !still {
			w.ended = append(w.ended, goneBackend{
				service:  uint16(p.known.id),
				protocol: uint8(p.frontend.Protocol),
				address:  bpf.Address(addr.Addr()),
				port:     bpf.Port(addr.Port()),
			})
		}
	}
	p.known.slots, p.known.serving = p.slots, p.serving
	if p.isNew {
		w.ops.known[p.frontend] = p.known
		w.ops.vips[p.frontend.Addr.Addr()]++
	}
}

// abandon gives up a plan that did not fit. The slots up to the old count may hold backends of the
// new set by now, and the frontend is as it was.
func (w *serviceWrite) abandon(p *servicePlan) {
	w.errs[p.frontend] = p.failed
	if p.isNew {
		keys := make([]bpf.BackendKey, len(p.slots))
		for i := range p.slots {
			keys[i] = bpf.BackendKey{Service: p.known.id, Slot: uint32(i)}
		}
		w.ops.backends.delete(keys)
		// Another port of the address may fit, and be committed after this.
		addr := p.frontend.Addr.Addr()
		if w.ops.vips[addr] == 0 && !slices.ContainsFunc(w.plans, func(o *servicePlan) bool {
			return o.failed == nil && o.frontend.Addr.Addr() == addr
		}) {
			w.ops.frontends.delete([]bpf.FrontendKey{vipKey(addr)})
		}
		w.ops.releaseLocked(p.frontend)
		return
	}
	for i := range min(len(p.slots), len(p.known.slots)) {
		var have bpf.Backend
		if w.ops.backends.m.Lookup(bpf.BackendKey{Service: p.known.id, Slot: uint32(i)}, &have) == nil {
			p.known.slots[i] = backendOf(have)
		}
	}
}

// deleteLocked removes frontends, then the backends behind them.
func (ops *serviceOps) deleteLocked(keys []service.Frontend) map[service.Frontend]error {
	errs := map[service.Frontend]error{}
	var front []bpf.FrontendKey
	var of []service.Frontend
	leaving := map[netip.Addr]int{}
	for _, f := range keys {
		if ops.known[f] == nil {
			continue
		}
		front, of = append(front, frontendKey(f)), append(of, f)
		addr := f.Addr.Addr()
		leaving[addr]++
		if leaving[addr] == ops.vips[addr] {
			front, of = append(front, vipKey(addr)), append(of, f)
		}
	}
	if len(front) == 0 {
		return nil
	}
	for i, err := range ops.frontends.delete(front) {
		errs[of[i]] = err
	}
	awaitPrograms()
	var back []bpf.BackendKey
	var ended []goneBackend
	for _, f := range slices.Compact(of) {
		if errs[f] != nil {
			continue
		}
		known := ops.known[f]
		for i := range known.slots {
			back = append(back, bpf.BackendKey{Service: known.id, Slot: uint32(i)})
		}
		for addr := range known.serving {
			ended = append(ended, goneBackend{uint16(known.id), uint8(f.Protocol), bpf.Address(addr.Addr()), bpf.Port(addr.Port())})
		}
		delete(ops.known, f)
		ops.releaseLocked(f)
		if ops.vips[f.Addr.Addr()]--; ops.vips[f.Addr.Addr()] == 0 {
			delete(ops.vips, f.Addr.Addr())
		}
	}
	ops.backends.delete(back)
	ops.ended(ended)
	return errs
}

// awaitPrograms returns after every program that runs now has ended.
func awaitPrograms() {
	// The global command waits for a grace period of RCU, under which programs run. A kernel that
	// does not have it leaves a race of nanoseconds in which a connection finds no backend.
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
}

const membarrierGlobal = 1

func protocolOf(p uint8) schema.Protocol { return schema.Protocol(p) }
