// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/weft-net/weft/kvstore/schema"
)

// TestFault_IPCacheFull has more rows than fit: status says so, what is there works, and when rows
// go the others come.
func TestFault_IPCacheFull(t *testing.T) {
	n := testLonely(t, "full", ModeVXLAN)
	n.cfg.MaxIPCache = 64
	n.start()
	ep := n.addEndpoint(1, "10.0.1.11", "", 1001)
	key := func(i int) schema.IPKey {
		return schema.IPKey{Cluster: "two", Prefix: hostPrefix(netip.AddrFrom4([4]byte{10, 9, 0, byte(i)}))}
	}
	const rows = 200
	for i := range rows {
		n.tables.IPs.Put("test", 0, key(i), schema.IP{HostIP: addr("192.0.2.9"), ID: uint32(70000 + i)})
	}
	line := func() Line {
		for _, l := range n.d.Status() {
			if l.Name == "map ipcache" {
				return l
			}
		}
		return Line{}
	}
	eventually(t, func() error {
		if l := line(); l.State != Fail || !strings.Contains(l.Reason, "full") || l.Do == "" {
			return fmt.Errorf("status does not say that the map is full: %+v", l)
		}
		return nil
	})
	mustRun(t, n.ns, "ping", "-c1", "-W2", ep.IPv4.String())
	for i := range rows - 10 {
		n.tables.IPs.Delete("test", 0, key(i))
	}
	eventually(t, func() error {
		if l := line(); l.State != OK {
			return fmt.Errorf("status: %+v", l)
		}
		return nil
	})
	if o, ok := n.d.IPCacheOutcome(key(rows - 1).Prefix); !ok || !o.Done {
		t.Errorf("last row: %+v", o)
	}
}

// TestFault_AddEndpointUndoes leaves nothing when the endpoint's side fails.
func TestFault_AddEndpointUndoes(t *testing.T) {
	n := testLonely(t, "undo", ModeNative)
	n.start()
	pod := testNS(t, "undo-pod")
	spec := EndpointSpec{Slot: 3, Name: "web", NetNSPath: pod.Path(), IPv4: addr("10.0.1.11")}
	for _, tt := range []struct {
		name  string
		spoil func(*EndpointSpec)
	}{
		{"no-namespace", func(s *EndpointSpec) { s.NetNSPath = "/nowhere" }},
		{"no-address", func(s *EndpointSpec) { s.IPv4 = netip.Addr{} }},
		{"wrong-family", func(s *EndpointSpec) { s.IPv4 = addr("fd00::1") }},
		{"slot-zero", func(s *EndpointSpec) { s.Slot = 0 }},
		{"slot-beyond-the-map", func(s *EndpointSpec) { s.Slot = 60000 }},
		{"long-device-name", func(s *EndpointSpec) { s.Inside = "a-name-that-is-much-too-long" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := spec
			tt.spoil(&bad)
			if dev, err := n.d.AddEndpoint(t.Context(), bad); err == nil {
				t.Errorf("made %+v", dev)
			}
			if out := mustRun(t, n.ns, "ip", "link"); strings.Contains(out, ": lxc") {
				t.Errorf("a device is left:\n%s", out)
			}
			for _, l := range n.pinnedLinks() {
				if strings.Contains(l, "endpoint") {
					t.Errorf("a link is left: %s", l)
				}
			}
		})
	}
	if _, err := n.d.AddEndpoint(t.Context(), spec); err != nil {
		t.Error(err)
	}
}

// TestFault_ForeignDevice has a device of somebody else where the one of a slot would be: neither the
// failed add nor its undo touches it.
func TestFault_ForeignDevice(t *testing.T) {
	n := testLonely(t, "foreign", ModeNative)
	n.start()
	for i, link := range [][]string{
		{"other", "type", "veth", "peer", "name", "other-peer"},    // another name
		{"lxcother", "type", "vxlan", "id", "7", "dstport", "999"}, // another type
	} {
		t.Run(link[2], func(t *testing.T) {
			slot := uint16(3 + i)
			name, index := link[0], fmt.Sprint(EndpointIfIndexBase+int(slot))
			mustRun(t, n.ns, append([]string{"ip", "link", "add", "index", index}, link...)...)
			defer mustRun(t, n.ns, "ip", "link", "del", name)
			mustRun(t, n.ns, "ip", "link", "set", name, "up")
			pod := testNS(t, fmt.Sprintf("foreign-pod%d", i))
			spec := EndpointSpec{Slot: slot, Name: "web", NetNSPath: pod.Path(), IPv4: addr("10.0.1.11")}
			if dev, err := n.d.AddEndpoint(t.Context(), spec); err == nil {
				t.Errorf("made %+v", dev)
			}
			if err := n.d.DeleteEndpoint(t.Context(), slot); err != nil {
				t.Error(err)
			}
			if out := mustRun(t, n.ns, "ip", "link", "show", name); !strings.Contains(out, ",UP") && !strings.Contains(out, "<UP") {
				t.Errorf("it is not up any more:\n%s", out)
			}
		})
	}
}

// TestFault_PathMTU follows a route to a node that has a smaller MTU.
func TestFault_PathMTU(t *testing.T) {
	n := testLonely(t, "pmtu", ModeVXLAN)
	n.start()
	n.tables.IPs.Put("test", 0, schema.IPKey{Cluster: "two", Prefix: prefix("10.9.0.1/32")}, schema.IP{HostIP: addr("198.51.100.9"), ID: 70000})
	waitIPCache(t, n, prefix("10.9.0.1/32"))
	mtu := func(want uint16) {
		t.Helper()
		eventually(t, func() error {
			for r, err := range n.openMaps().Nodes() {
				if err != nil {
					return err
				}
				if r.Addr == addr("198.51.100.9") && r.MTU == want {
					return nil
				}
			}
			return fmt.Errorf("no node with MTU %d", want)
		})
	}
	mustRun(t, n.ns, "ip", "route", "add", "198.51.100.0/24", "dev", "eth0")
	mtu(1500)
	mustRun(t, n.ns, "ip", "route", "change", "198.51.100.0/24", "dev", "eth0", "mtu", "1400")
	mtu(1400)
}
