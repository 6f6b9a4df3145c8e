// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/service"
)

// TestObserve_Service watches one connection to a service by every means there is.
func TestObserve_Service(t *testing.T) {
	n := testLonely(t, "obs", ModeNative)
	reg := prometheus.NewRegistry()
	n.reg = reg
	n.start()
	client := n.addEndpoint(1, "10.0.1.11", "", 1001)
	server := n.addEndpoint(2, "10.0.1.12", "", 1002)
	echo(t, server.ns, 7)
	f := frontend(1, 80, unix.IPPROTO_TCP)
	n.tables.Frontends.Put("test", 0, f, service.Service{
		Backends: []service.Backend{{Addr: netip.AddrPortFrom(server.IPv4, 7)}}, Chosen: 1,
	})
	eventually(t, func() error {
		if o, ok := n.d.FrontendOutcome(f); !ok || !o.Done {
			return fmt.Errorf("frontend: %+v", o)
		}
		return nil
	})

	events := make(chan Event, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- n.d.ReadEvents(ctx, func(e Event) error { events <- e; return nil })
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	if err := ask(client.ns, "tcp", f.Addr, 1000); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []EventKind{EventNew, EventClosed} {
		var e Event
		for e.Kind != kind {
			select {
			case e = <-events:
			case <-ctx.Done():
				t.Fatalf("no event of kind %s", kind)
			}
		}
		if e.Destination != f.Addr || e.Backend != netip.AddrPortFrom(server.IPv4, 7) ||
			e.SourceIdentity != 1001 || e.DestinationIdentity != 1002 || e.SourceSlot != 1 || e.DestinationSlot != 2 {
			t.Errorf("event: %+v", e)
		}
		if name, ok := n.d.ServiceName(e.ServiceID); !ok || name != f {
			t.Errorf("service of the event: %v %v", name, ok)
		}
	}

	m := n.openMaps()
	found := false
	for r, err := range m.Services() {
		if err != nil {
			t.Fatal(err)
		}
		found = found || r.Frontend == f.Addr && len(r.Backends) == 1 && r.Backends[0] == netip.AddrPortFrom(server.IPv4, 7)
	}
	if !found {
		t.Error("the service is not listed")
	}
	translated := false
	for e, err := range m.Flows() {
		if err != nil {
			t.Fatal(err)
		}
		translated = translated || e.Destination == f.Addr && e.Translated == netip.AddrPortFrom(server.IPv4, 7)
	}
	if !translated {
		t.Error("the flow is not listed")
	}

	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, mf := range families {
		names[mf.GetName()] = true
	}
	for _, want := range []string{"weft_datapath_packets_total", "weft_datapath_map_entries", "weft_datapath_rows_failed"} {
		if !names[want] {
			t.Errorf("no metric %s in %v", want, names)
		}
	}
	for _, l := range n.d.Status() {
		if l.State == Fail {
			t.Errorf("status: %+v", l)
		}
	}
}
