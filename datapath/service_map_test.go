// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/internal/netns"
	"github.com/weft-net/weft/service"
	"github.com/weft-net/weft/state"
)

// testObjects loads the programs with private maps.
func testObjects(t *testing.T) (*bpf.Objects, Config) {
	t.Helper()
	netns.RequireRoot(t)
	cfg := testConfig("x")
	cfg.NodeIPs = []netip.Addr{addr("192.0.2.1")}
	o, err := bpf.Load(cfg.programs(""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o, cfg
}

// frontend is 10.96.0.<n>:80.
func frontend(n, port uint16, protocol uint8) service.Frontend {
	return service.Frontend{
		Addr:     netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, 0, byte(n)}), port),
		Protocol: protocolOf(protocol),
	}
}

// serviceOf has the backends 10.0.0.<n>:8080.
func serviceOf(backends ...int) service.Service {
	s := service.Service{Chosen: len(backends)}
	for _, n := range backends {
		s.Backends = append(s.Backends, service.Backend{
			Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 8080),
		})
	}
	return s
}

// kernelBackends is what a lookup in the kernel could find, in the order of slots.
func kernelBackends(t *testing.T, o *bpf.Objects, f service.Frontend) []int {
	t.Helper()
	var front bpf.Frontend
	if err := o.Frontends.Lookup(frontendKey(f), &front); err != nil {
		t.Fatalf("frontend %s: %v", f, err)
	}
	var found []int
	for slot := range front.Count {
		var b bpf.Backend
		if err := o.Backends.Lookup(bpf.BackendKey{Service: front.Service, Slot: slot}, &b); err != nil {
			t.Fatalf("frontend %s: hole at slot %d of %d", f, slot, front.Count)
		}
		a := bpf.Addr(b.Address).As4()
		found = append(found, int(a[2])<<8|int(a[3]))
	}
	return found
}

func update(ops *serviceOps, rows map[service.Frontend]service.Service) map[service.Frontend]error {
	var list []state.Row[service.Frontend, service.Service]
	for f, s := range rows {
		list = append(list, state.Row[service.Frontend, service.Service]{Key: f, Value: s})
	}
	slices.SortFunc(list, func(a, b state.Row[service.Frontend, service.Service]) int { return a.Key.Compare(b.Key) })
	return ops.Update(context.Background(), list)
}

func TestServiceOps_Changes(t *testing.T) {
	o, _ := testObjects(t)
	var ended []goneBackend
	ops, err := openServices(o, func(g []goneBackend) { ended = append(ended, g...) })
	if err != nil {
		t.Fatal(err)
	}
	f := frontend(1, 80, unix.IPPROTO_TCP)
	var before []int
	for _, step := range []struct {
		name string
		want []int
		gone int
	}{
		{"new", []int{1, 2, 3, 4}, 0},
		{"same", []int{1, 2, 3, 4}, 0},
		{"grow", []int{1, 2, 3, 4, 5, 6}, 0},
		{"shrink-in-the-middle", []int{1, 3, 4, 5, 6}, 1},
		{"replace", []int{1, 3, 4, 5, 7}, 1},
		{"shrink-to-one", []int{4}, 4},
		{"empty", nil, 1},
		{"back", []int{1, 2}, 0},
	} {
		ended = nil
		if errs := update(ops, map[service.Frontend]service.Service{f: serviceOf(step.want...)}); len(errs) > 0 {
			t.Fatalf("%s: %v", step.name, errs)
		}
		got := kernelBackends(t, o, f)
		moved := 0
		for i := range min(len(got), len(before)) {
			if slices.Contains(step.want, before[i]) && got[i] != before[i] {
				moved++
			}
		}
		if moved > 0 {
			t.Errorf("%s: %d backends that stayed within the slots changed theirs: %v to %v", step.name, moved, before, got)
		}
		before = slices.Clone(got)
		slices.Sort(got)
		if !slices.Equal(got, step.want) {
			t.Errorf("%s: kernel has %v, want %v", step.name, got, step.want)
		}
		if len(ended) != step.gone {
			t.Errorf("%s: %d backends ended, want %d", step.name, len(ended), step.gone)
		}
	}
	if n := count(t, rowMap[bpf.BackendKey, bpf.Backend]{"backends", o.Backends}); n != 2 {
		t.Errorf("backends: %d rows, want 2: the rest is a leak", n)
	}

	// A new run finds all of it and changes nothing.
	again, err := openServices(o, func([]goneBackend) {})
	if err != nil {
		t.Fatal(err)
	}
	if errs := update(again, map[service.Frontend]service.Service{f: serviceOf(1, 2)}); len(errs) > 0 {
		t.Fatal(errs)
	}
	if got := kernelBackends(t, o, f); !slices.Equal(got, before) {
		t.Errorf("after a restart: %v, want %v", got, before)
	}

	// Two frontends share an address; the row that says so goes with the last.
	g := frontend(1, 53, unix.IPPROTO_UDP)
	update(again, map[service.Frontend]service.Service{g: serviceOf(9)})
	vip := vipKey(f.Addr.Addr())
	for _, step := range []struct {
		gone service.Frontend
		vip  bool
	}{{f, true}, {g, false}} {
		if errs := again.Delete(t.Context(), []service.Frontend{step.gone}); len(errs) > 0 {
			t.Fatal(errs)
		}
		var row bpf.Frontend
		if err := o.Frontends.Lookup(vip, &row); (err == nil) != step.vip {
			t.Errorf("row of the address after %s went: %v", step.gone, err)
		}
	}
	if n := count(t, rowMap[bpf.BackendKey, bpf.Backend]{"backends", o.Backends}); n != 0 {
		t.Errorf("backends: %d rows are left", n)
	}
}

// count is the number of rows of a map.
func count[K comparable, V any](t *testing.T, m rowMap[K, V]) int {
	t.Helper()
	n := 0
	if err := m.each(func(keys []K, _ []V) bool { n += len(keys); return true }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestServiceOps_MapFull(t *testing.T) {
	o, cfg := testObjects(t)
	ops, err := openServices(o, func([]goneBackend) {})
	if err != nil {
		t.Fatal(err)
	}
	small, big := frontend(1, 80, unix.IPPROTO_TCP), frontend(2, 80, unix.IPPROTO_TCP)
	var many []int
	for i := range int(cfg.MaxBackends) + 1 {
		many = append(many, i+1)
	}
	errs := update(ops, map[service.Frontend]service.Service{small: serviceOf(1, 2), big: serviceOf(many...)})
	var full *bpf.FullError
	if !errors.As(errs[big], &full) || full.Map != "backends" {
		t.Errorf("big service: %v, want a full map of backends", errs[big])
	}
	if errs[small] != nil {
		t.Errorf("small service: %v", errs[small])
	}
	if got := kernelBackends(t, o, small); len(got) != 2 {
		t.Errorf("small service has %v", got)
	}
	// What did not fit left nothing behind, so there is room.
	if errs := update(ops, map[service.Frontend]service.Service{big: serviceOf(many[:100]...)}); len(errs) > 0 {
		t.Error(errs)
	}
	if got := kernelBackends(t, o, big); len(got) != 100 {
		t.Errorf("big service has %d backends", len(got))
	}
}

// The address of a service is known as one while any of its ports is there.
func TestServiceOps_MapFullForOnePort(t *testing.T) {
	o, cfg := testObjects(t)
	ops, err := openServices(o, func([]goneBackend) {})
	if err != nil {
		t.Fatal(err)
	}
	var many []int
	for i := range int(cfg.MaxBackends) + 1 {
		many = append(many, i+1)
	}
	for i := range uint16(8) { // the ports come in any order
		big, small := frontend(i+1, 80, unix.IPPROTO_TCP), frontend(i+1, 81, unix.IPPROTO_TCP)
		errs := update(ops, map[service.Frontend]service.Service{big: serviceOf(many...), small: serviceOf()})
		if errs[big] == nil || errs[small] != nil {
			t.Fatalf("errors %v", errs)
		}
		var row bpf.Frontend
		if err := ops.frontends.m.Lookup(vipKey(small.Addr.Addr()), &row); err != nil {
			t.Errorf("the row of the address: %v", err)
		}
	}
}

func TestServiceOps_NumbersRest(t *testing.T) {
	o, _ := testObjects(t)
	ops, err := openServices(o, func([]goneBackend) {})
	if err != nil {
		t.Fatal(err)
	}
	f := frontend(1, 80, unix.IPPROTO_TCP)
	update(ops, map[service.Frontend]service.Service{f: serviceOf(1)})
	id := ops.known[f].id
	ops.Delete(t.Context(), []service.Frontend{f})
	for i, step := range []struct {
		used  map[uint16]bool
		known bool
	}{
		{nil, true}, // released while this sweep may have been under way
		{map[uint16]bool{uint16(id): true}, true}, // a flow still names it
		{nil, false},
	} {
		ops.free(step.used)
		if _, known := ops.name(id); known != step.known {
			t.Errorf("sweep %d: name known: %v, want %v", i, known, step.known)
		}
	}
}
