// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/bpf"
)

func TestFlowTable_Sweep(t *testing.T) {
	o, cfg := testObjects(t)
	ticks, err := clockRate()
	if err != nil {
		t.Fatal(err)
	}
	table := newFlowTable(o, cfg.programs(""), cfg.GCInterval, ticks)
	var services map[uint16]bool
	table.swept = func(s map[uint16]bool) { services = s }
	now, err := o.Now()
	if err != nil {
		t.Fatal(err)
	}
	ago := func(seconds uint32) uint32 { return now - seconds*ticks }
	put := func(m string, n uint16, protocol uint8, f bpf.Flow) bpf.FlowKey {
		k := bpf.NewFlowKey(netip.AddrPortFrom(addr("10.0.1.7"), n), netip.AddrPortFrom(addr("10.0.2.7"), 80), protocol, 0)
		dst := o.Flows
		if m == "young" {
			dst = o.FlowsYoung
		}
		if err := dst.Put(k, f); err != nil {
			t.Fatal(err)
		}
		return k
	}
	const tcp, udp = unix.IPPROTO_TCP, unix.IPPROTO_UDP
	tests := []struct {
		name  string
		key   bpf.FlowKey
		stays bool
	}{
		{"tcp-established", put("", 1, tcp, bpf.Flow{Seen: ago(3600), State: bpf.FlowReplied, Service: 3}), true},
		{"tcp-established-too-long", put("", 2, tcp, bpf.Flow{Seen: ago(7 * 3600), State: bpf.FlowReplied}), false},
		{"tcp-syn", put("", 3, tcp, bpf.Flow{Seen: ago(30)}), true},
		{"tcp-syn-too-long", put("", 4, tcp, bpf.Flow{Seen: ago(90)}), false},
		{"tcp-half-closed", put("", 5, tcp, bpf.Flow{Seen: ago(90), State: bpf.FlowReplied | bpf.FlowFin}), true},
		{"tcp-closed", put("", 6, tcp, bpf.Flow{Seen: ago(90), State: bpf.FlowReplied | bpf.FlowFin | bpf.FlowTwinFin}), false},
		{"tcp-reset", put("", 7, tcp, bpf.Flow{Seen: ago(20), State: bpf.FlowReplied | bpf.FlowReset}), false},
		{"udp", put("", 8, udp, bpf.Flow{Seen: ago(30)}), true},
		{"udp-too-long", put("", 9, udp, bpf.Flow{Seen: ago(90)}), false},
		{"young-syn-too-long", put("young", 10, tcp, bpf.Flow{Seen: ago(90)}), false},
		{"seen-after-now", put("", 11, udp, bpf.Flow{Seen: now + 5}), true},
		{"one-way-udp", put("", 12, udp, bpf.Flow{Seen: ago(1)}), true},
	}
	// The twin of a flow that has packets in one direction only.
	silent := bpf.NewFlowKey(netip.AddrPortFrom(addr("10.0.2.7"), 80), netip.AddrPortFrom(addr("10.0.1.7"), 12), udp, 0)
	if err := o.Flows.Put(silent, bpf.Flow{Seen: ago(90), State: bpf.FlowReply}); err != nil {
		t.Fatal(err)
	}
	if err := table.sweep(); err != nil {
		t.Fatal(err)
	}
	has := func(k bpf.FlowKey) bool {
		var f bpf.Flow
		return o.Flows.Lookup(k, &f) == nil || o.FlowsYoung.Lookup(k, &f) == nil
	}
	stay := int64(1)
	for _, tt := range tests {
		if has(tt.key) != tt.stays {
			t.Errorf("%s: stays: %v, want %v", tt.name, has(tt.key), tt.stays)
		}
		if tt.stays {
			stay++
		}
	}
	if !has(silent) {
		t.Error("the silent direction of a live flow was removed")
	}
	if got := table.entries.Load(); got != stay {
		t.Errorf("%d entries counted, want %d", got, stay)
	}
	if !services[3] {
		t.Errorf("services met: %v, want 3 among them", services)
	}
}

// A connection that began with an entry's key after the sweep had read it idle keeps its entry.
func TestFlowTable_SpareWhatBeganAnew(t *testing.T) {
	o, cfg := testObjects(t)
	ticks, err := clockRate()
	if err != nil {
		t.Fatal(err)
	}
	table := newFlowTable(o, cfg.programs(""), cfg.GCInterval, ticks)
	now, err := o.Now()
	if err != nil {
		t.Fatal(err)
	}
	const closed = bpf.FlowReplied | bpf.FlowFin | bpf.FlowTwinFin
	for _, m := range []rowMap[bpf.FlowKey, bpf.Flow]{table.old, table.young} {
		for name, remove := range map[string]func(bpf.FlowKey) (bool, error){
			"read again":      func(k bpf.FlowKey) (bool, error) { return table.removeIdle(m, k, now, false) },
			"between the two": func(k bpf.FlowKey) (bool, error) { return table.take(m, k, now, false) },
		} {
			for i, tt := range []struct {
				flow bpf.Flow
				gone bool
			}{
				{bpf.Flow{Seen: now + 1, Packets: 3}, false},
				{bpf.Flow{Seen: now - 1000*ticks, State: closed}, true},
			} {
				k := bpf.NewFlowKey(netip.AddrPortFrom(addr("10.0.1.7"), uint16(i)), netip.AddrPortFrom(addr("10.96.0.10"), 80), unix.IPPROTO_TCP, 4)
				if err := m.m.Put(k, tt.flow); err != nil {
					t.Fatal(err)
				}
				gone, err := remove(k)
				if err != nil {
					t.Fatal(err)
				}
				var have bpf.Flow
				found := m.m.Lookup(k, &have) == nil
				if gone != tt.gone || found == tt.gone || found && have != tt.flow {
					t.Errorf("%s, %s, %+v: removed %v, found %v %+v", m.name, name, tt.flow, gone, found, have)
				}
				if gone, err := remove(k); tt.gone && (gone || err != nil) {
					t.Errorf("%s, %s: what is not there: %v, %v", m.name, name, gone, err)
				}
			}
		}
	}
}

func TestFlowTable_Pressure(t *testing.T) {
	o, cfg := testObjects(t)
	ticks, err := clockRate()
	if err != nil {
		t.Fatal(err)
	}
	table := newFlowTable(o, cfg.programs(""), cfg.GCInterval, ticks)
	table.swept = func(map[uint16]bool) {}
	now, err := o.Now()
	if err != nil {
		t.Fatal(err)
	}
	fill := func(n uint32) []bpf.FlowKey {
		var keys []bpf.FlowKey
		var values []bpf.Flow
		for i := range n {
			keys = append(keys, bpf.FlowKey{Source: bpf.Address(addr("10.0.0.1")), Protocol: unix.IPPROTO_UDP, SourcePort: uint16(i), Family: 4})
			values = append(values, bpf.Flow{Seen: now})
		}
		if errs := table.old.put(keys, values); errs != nil {
			t.Fatal(errs)
		}
		return keys
	}
	want := func(pressure, young uint32) {
		t.Helper()
		if err := table.sweep(); err != nil {
			t.Fatal(err)
		}
		var s bpf.Settings
		if err := o.Runtime.Lookup(uint32(0), &s); err != nil {
			t.Fatal(err)
		}
		if s.Pressure != pressure || s.Young != young {
			t.Errorf("settings %+v at %d%%, want pressure %d, young %d", s, table.fill(), pressure, young)
		}
	}
	want(0, 0)
	keys := fill(cfg.MaxFlows * 80 / 100)
	want(1, 1)
	if got := table.pause(); got != pressureEvery {
		t.Errorf("next sweep in %s", got)
	}
	table.old.delete(keys[:cfg.MaxFlows*10/100]) // 70 %: still on
	want(1, 1)
	if err := o.FlowsYoung.Put(keys[0], bpf.Flow{Seen: now}); err != nil {
		t.Fatal(err)
	}
	table.old.delete(keys)
	want(0, 1)
	table.young.delete(keys[:1])
	want(0, 0)
}

func TestFlowTable_EndBackends(t *testing.T) {
	o, cfg := testObjects(t)
	table := newFlowTable(o, cfg.programs(""), cfg.GCInterval, 250)
	table.swept = func(map[uint16]bool) {}
	now, err := o.Now()
	if err != nil {
		t.Fatal(err)
	}
	backend := netip.MustParseAddrPort("10.0.2.7:8080")
	client, vip := netip.MustParseAddrPort("10.0.1.7:4000"), netip.MustParseAddrPort("10.96.0.1:80")
	for _, protocol := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		forward := bpf.NewFlowKey(client, vip, protocol, 5)
		f := bpf.Flow{
			Seen: now, State: bpf.FlowDestination, Service: 9, Ifindex: 2,
			Address: bpf.Address(backend.Addr()), Port: bpf.Port(backend.Port()),
		}
		reply := bpf.NewFlowKey(backend, client, protocol, 0)
		if got := table.twin(forward, f); got != reply {
			t.Fatalf("twin: %+v, want %+v", got, reply)
		}
		for k, v := range map[bpf.FlowKey]bpf.Flow{forward: f, reply: {Seen: now, State: bpf.FlowReply | bpf.FlowSource}} {
			if err := o.Flows.Put(k, v); err != nil {
				t.Fatal(err)
			}
		}
		table.endBackends([]goneBackend{{9, protocol, bpf.Address(backend.Addr()), bpf.Port(backend.Port())}})
		if err := table.sweep(); err != nil {
			t.Fatal(err)
		}
		var v bpf.Flow
		gone := o.Flows.Lookup(forward, &v) != nil && o.Flows.Lookup(reply, &v) != nil
		if gone != (protocol == unix.IPPROTO_UDP) {
			t.Errorf("protocol %d: entries gone: %v", protocol, gone)
		}
	}
}
