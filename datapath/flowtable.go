// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/bpf"
)

// flowTable sweeps the maps flows and flows_young: the programs put entries in, only this takes
// them out.
type flowTable struct {
	old, young   rowMap[bpf.FlowKey, bpf.Flow]
	runtime      *ebpf.Map
	now          func() (uint32, error)
	ticks        uint32 // per second
	slots        uint32
	loop4, loop6 [16]byte
	interval     time.Duration // longest between two sweeps

	// swept is told the numbers of services that entries name, after each sweep.
	swept func(map[uint16]bool)

	wake chan struct{} // holds one request for a sweep now

	mu   sync.Mutex
	gone map[goneBackend]struct{} // guarded: whose flows the next sweep ends

	entries, youngEntries atomic.Int64 // at the last sweep
	sweptAt               atomic.Int64 // when that was, nanoseconds since 1970; 0: not yet
	removed               atomic.Int64
	pressure              atomic.Bool
}

// goneBackend names a backend that a service lost; the port is in network byte order.
type goneBackend struct {
	service  uint16
	protocol uint8
	address  [16]byte
	port     uint16
}

// Fill levels of flows, in percent, at which new flows begin in flows_young, and stop to.
const (
	pressureOn  = 75
	pressureOff = 65
	// busyFill is where sweeps come as often as pressureEvery.
	busyFill      = 50
	pressureEvery = time.Second
	busyEvery     = 5 * time.Second
)

func newFlowTable(o *bpf.Objects, cfg bpf.Config, interval time.Duration, ticks uint32) *flowTable {
	return &flowTable{
		old:      rowMap[bpf.FlowKey, bpf.Flow]{"flows", o.Flows},
		young:    rowMap[bpf.FlowKey, bpf.Flow]{"flows_young", o.FlowsYoung},
		runtime:  o.Runtime,
		now:      o.Now,
		ticks:    ticks,
		slots:    cfg.EndpointSlots,
		loop4:    bpf.Address(cfg.LoopbackIPv4),
		loop6:    bpf.Address(cfg.LoopbackIPv6),
		interval: interval,
		wake:     make(chan struct{}, 1),
		gone:     map[goneBackend]struct{}{},
	}
}

// Run sweeps until ctx ends.
func (t *flowTable) Run(ctx context.Context) error {
	for {
		if err := t.sweep(); err != nil {
			return err
		}
		pause := time.NewTimer(t.pause())
		select {
		case <-pause.C:
		case <-t.wake:
			pause.Stop()
		case <-ctx.Done():
			pause.Stop()
			return nil
		}
	}
}

// pause is the time to the next sweep.
func (t *flowTable) pause() time.Duration {
	switch fill := t.fill(); {
	case t.pressure.Load() || fill >= pressureOn:
		return min(pressureEvery, t.interval)
	case fill >= busyFill:
		return min(busyEvery, t.interval)
	}
	return t.interval
}

// fill is how full flows was at the last sweep, in percent.
func (t *flowTable) fill() int64 { return t.entries.Load() * 100 / int64(t.old.m.MaxEntries()) }

// endBackends makes UDP flows to backends that are gone end: their next packet finds another one. A
// TCP connection keeps its backend, which may be alive and only no longer part of the service.
func (t *flowTable) endBackends(gone []goneBackend) {
	t.mu.Lock()
	for _, g := range gone {
		if g.protocol == unix.IPPROTO_UDP {
			t.gone[g] = struct{}{}
		}
	}
	some := len(t.gone) > 0
	t.mu.Unlock()
	if !some {
		return
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// sweep removes what has been idle too long and applies what is known of backends.
func (t *flowTable) sweep() error {
	t.mu.Lock()
	gone := t.gone
	t.gone = map[goneBackend]struct{}{}
	t.mu.Unlock()
	now, err := t.now()
	if err != nil {
		return err
	}
	services := map[uint16]bool{}
	entries, err := t.sweepMap(t.old, now, gone, services)
	if err != nil {
		return err
	}
	t.entries.Store(entries)
	young, err := t.sweepMap(t.young, now, gone, services)
	if err != nil {
		return err
	}
	t.swept(services)
	t.youngEntries.Store(young)
	t.sweptAt.Store(time.Now().UnixNano())
	return t.setPressure()
}

// sweepMap sweeps one map and returns how many entries stay. It adds the numbers of services that it
// meets to services.
func (t *flowTable) sweepMap(m rowMap[bpf.FlowKey, bpf.Flow], now uint32, gone map[goneBackend]struct{}, services map[uint16]bool) (int64, error) {
	var count int64
	var failed error
	pressure := t.pressure.Load()
	err := m.each(func(keys []bpf.FlowKey, values []bpf.Flow) bool {
		var dead, twins []bpf.FlowKey
		for i, k := range keys {
			count++
			f := values[i]
			if f.Service != 0 {
				services[f.Service] = true
			}
			if lost(k, f, gone) {
				dead = append(dead, k)
				twins = append(twins, t.twin(k, f))
				continue
			}
			if idle(f, now, t.ticks) <= idleLimit(k, f, pressure) {
				continue
			}
			if twin := t.twin(k, f); t.alive(twin, now, pressure) {
				continue
			}
			removed, err := t.removeIdle(m, k, now, pressure)
			if err != nil {
				failed = err
				return false
			}
			if removed {
				count--
			}
		}
		failed = errors.Join(t.remove(m, dead), t.remove(t.old, twins), t.remove(t.young, twins))
		count -= int64(len(dead))
		return failed == nil
	})
	return max(count, 0), errors.Join(err, failed)
}

// removeIdle removes an entry if it is still idle. Since the sweep has read it, a client that uses its
// port again may have begun a connection with it, which would not survive: what comes back from its
// backend would not be translated. So the entry is read again just before, and what began in the
// moment in between is put back.
func (t *flowTable) removeIdle(m rowMap[bpf.FlowKey, bpf.Flow], k bpf.FlowKey, now uint32, pressure bool) (bool, error) {
	var f bpf.Flow
	if err := m.m.Lookup(k, &f); errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("read a flow of %s: %w", m.name, err)
	}
	if idle(f, now, t.ticks) <= idleLimit(k, f, pressure) {
		return false, nil
	}
	return t.take(m, k, now, pressure)
}

// take removes an entry and puts it back if it turns out not to be idle.
func (t *flowTable) take(m rowMap[bpf.FlowKey, bpf.Flow], k bpf.FlowKey, now uint32, pressure bool) (bool, error) {
	var f bpf.Flow
	if err := m.m.LookupAndDelete(k, &f); errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("remove a flow of %s: %w", m.name, err)
	}
	if idle(f, now, t.ticks) <= idleLimit(k, f, pressure) {
		if err := m.m.Update(k, f, ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return false, fmt.Errorf("put a flow of %s back: %w", m.name, err)
		}
		return false, nil
	}
	t.removed.Add(1)
	return true, nil
}

func (t *flowTable) twin(k bpf.FlowKey, f bpf.Flow) bpf.FlowKey {
	return twinKey(k, f, t.slots, t.loop4, t.loop6)
}

// alive says that an entry is there and not idle. A connection with packets in one direction only
// lives in both.
func (t *flowTable) alive(k bpf.FlowKey, now uint32, pressure bool) bool {
	for _, m := range []*ebpf.Map{t.old.m, t.young.m} {
		var f bpf.Flow
		if m.Lookup(k, &f) == nil {
			return idle(f, now, t.ticks) <= idleLimit(k, f, pressure)
		}
	}
	return false
}

// lost says that an entry leads to one of the backends.
func lost(k bpf.FlowKey, f bpf.Flow, gone map[goneBackend]struct{}) bool {
	if len(gone) == 0 || f.State&bpf.FlowDestination == 0 {
		return false
	}
	_, ok := gone[goneBackend{service: f.Service, protocol: k.Protocol, address: f.Address, port: f.Port}]
	return ok
}

func (t *flowTable) remove(m rowMap[bpf.FlowKey, bpf.Flow], keys []bpf.FlowKey) error {
	for _, err := range m.delete(keys) {
		return err
	}
	t.removed.Add(int64(len(keys)))
	return nil
}

// setPressure tells the programs where new flows begin, and whether they have to look into
// flows_young at all. Programs set that mark too, when they use the map.
func (t *flowTable) setPressure() error {
	fill := t.fill()
	on := fill >= pressureOn || t.pressure.Load() && fill > pressureOff
	t.pressure.Store(on)
	var have, want bpf.Settings
	if err := t.runtime.Lookup(uint32(0), &have); err != nil {
		return fmt.Errorf("read runtime settings: %w", err)
	}
	if on {
		want.Pressure = 1
	}
	if on || t.youngEntries.Load() > 0 {
		want.Young = 1
	}
	if have == want {
		return nil
	}
	if err := t.writeSettings(want); err != nil || want.Young == 1 {
		return err
	}
	// A program may have put an entry there since the sweep, and its mark is gone now.
	empty := true
	err := t.young.each(func([]bpf.FlowKey, []bpf.Flow) bool {
		empty = false
		return false
	})
	if err != nil || empty {
		return err
	}
	want.Young = 1
	return t.writeSettings(want)
}

func (t *flowTable) writeSettings(s bpf.Settings) error {
	if err := t.runtime.Put(uint32(0), s); err != nil {
		return fmt.Errorf("write runtime settings: %w", err)
	}
	return nil
}

// removeEndpoint deletes every entry from or to an endpoint.
func (t *flowTable) removeEndpoint(slot uint16, addrs []netip.Addr) error {
	var as [][16]byte
	for _, a := range addrs {
		as = append(as, bpf.Address(a))
	}
	for _, m := range []rowMap[bpf.FlowKey, bpf.Flow]{t.old, t.young} {
		var failed error
		err := m.each(func(keys []bpf.FlowKey, values []bpf.Flow) bool {
			var dead []bpf.FlowKey
			for i, k := range keys {
				if touches(k, values[i], slot, as) {
					dead = append(dead, k)
				}
			}
			failed = t.remove(m, dead)
			return failed == nil
		})
		if err := errors.Join(err, failed); err != nil {
			return err
		}
	}
	return nil
}
