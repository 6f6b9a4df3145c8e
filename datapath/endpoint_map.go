// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"fmt"
	"sync"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/state"
)

// endpointOps writes the rows of local endpoints into the map endpoints.
type endpointOps struct {
	rows  rowMap[uint32, bpf.Endpoint]
	gen   *generation
	table *state.Table[uint16, LocalEndpoint]
	mtu   func() int // of endpoint devices
	// removeSlot takes away what is left of an endpoint that nobody wants.
	removeSlot func(ctx context.Context, slot uint16) error
	// devices lists the slots that have a device.
	devices func() ([]uint16, error)

	mu sync.Mutex // orders writes of a row and the removal of the same slot
}

// endpointRow is the kernel's row of an endpoint.
func endpointRow(ep LocalEndpoint, mtu int) bpf.Endpoint {
	return bpf.Endpoint{
		Identity: ep.Identity,
		Ipv4:     bpf.Address(ep.IPv4),
		Ipv6:     bpf.Address(ep.IPv6),
		Mac:      ep.MAC,
		Mtu:      uint16(mtu),
	}
}

// Update implements state.Ops.
func (ops *endpointOps) Update(_ context.Context, rows []state.Row[uint16, LocalEndpoint]) map[uint16]error {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	errs := map[uint16]error{}
	for _, r := range rows {
		// The row may be gone by now, and its slot empty for good reason.
		now, ok := ops.table.Get(r.Key)
		if !ok {
			continue
		}
		if err := ops.writeLocked(r.Key, endpointRow(now.Value, ops.mtu())); err != nil {
			errs[r.Key] = err
		}
	}
	return errs
}

func (ops *endpointOps) writeLocked(slot uint16, row bpf.Endpoint) error {
	if uint32(slot) >= ops.rows.m.MaxEntries() || slot == 0 {
		return fmt.Errorf("endpoint slot %d: not in 1 to %d", slot, ops.rows.m.MaxEntries()-1)
	}
	var have bpf.Endpoint
	if err := ops.rows.m.Lookup(uint32(slot), &have); err != nil {
		return bpf.WriteError(ops.rows.name, ops.rows.m, err)
	}
	if have == row {
		return nil
	}
	if err := ops.rows.put([]uint32{uint32(slot)}, []bpf.Endpoint{row})[0]; err != nil {
		return err
	}
	ops.gen.Mark()
	return nil
}

// rewrite writes all rows of the table again, after the MTU changed.
func (ops *endpointOps) rewrite() error {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	for r := range ops.table.All() {
		if err := ops.writeLocked(r.Key, endpointRow(r.Value, ops.mtu())); err != nil {
			return err
		}
	}
	return nil
}

// clear empties a slot: its endpoint can neither send nor receive.
func (ops *endpointOps) clear(slot uint16) error {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	return ops.writeLocked(slot, bpf.Endpoint{})
}

// Delete implements state.Ops. The device is taken away by DeleteEndpoint, or, if nobody calls
// that, by Prune.
func (ops *endpointOps) Delete(_ context.Context, slots []uint16) map[uint16]error {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	errs := map[uint16]error{}
	for _, slot := range slots {
		if _, ok := ops.table.Get(slot); ok {
			continue
		}
		if err := ops.writeLocked(slot, bpf.Endpoint{}); err != nil {
			errs[slot] = err
		}
	}
	return errs
}

// Prune implements state.Ops: it removes endpoints of an earlier run with all that is left of them.
func (ops *endpointOps) Prune(ctx context.Context, want func(uint16) (LocalEndpoint, bool)) error {
	stale := map[uint16]bool{}
	err := ops.rows.each(func(keys []uint32, values []bpf.Endpoint) bool {
		for i, k := range keys {
			if _, ok := want(uint16(k)); !ok && values[i] != (bpf.Endpoint{}) {
				stale[uint16(k)] = true
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	slots, err := ops.devices()
	if err != nil {
		return err
	}
	for _, slot := range slots {
		if _, ok := want(slot); !ok {
			stale[slot] = true
		}
	}
	for slot := range stale {
		if err := ops.removeSlot(ctx, slot); err != nil {
			return err
		}
	}
	return nil
}
