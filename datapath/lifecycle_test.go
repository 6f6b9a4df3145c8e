// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/internal/netns"
)

// dial opens a TCP connection from a namespace.
func dial(t *testing.T, from *netns.NS, to netip.AddrPort) net.Conn {
	t.Helper()
	var conn net.Conn
	err := from.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", to.String(), 5*time.Second)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// openMaps opens a node's maps as the command line does.
func (n *testNode) openMaps() *Maps {
	n.t.Helper()
	m, err := OpenMaps(n.cfg.BPFRoot, n.name)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(m.Close)
	return m
}

// drops sums the packets that were dropped for any reason.
func (n *testNode) drops() uint64 {
	n.t.Helper()
	totals, err := n.openMaps().Counters()
	if err != nil {
		n.t.Fatal(err)
	}
	var sum uint64
	for _, c := range totals {
		if c.Reason != bpf.DropNone && c.Reason != bpf.DropMulticast {
			sum += c.Packets
		}
	}
	return sum
}

func TestEndpoint_DeleteLeavesNothing(t *testing.T) {
	n := testLonely(t, "del", ModeVXLAN)
	n.start()
	stays := n.addEndpoint(1, "10.0.1.11", "fd00:1::11", 1001)
	goes := n.addEndpoint(2, "10.0.1.12", "fd00:1::12", 1002)
	echo(t, goes.ns, 7)
	echo(t, stays.ns, 7)
	for _, a := range []netip.Addr{goes.IPv4, goes.IPv6} {
		if err := ask(stays.ns, "tcp", netip.AddrPortFrom(a, 7), 100); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask(goes.ns, "udp", netip.AddrPortFrom(stays.IPv4, 7), 100); err != nil {
		t.Fatal(err)
	}
	n.deleteEndpoint(goes)

	m := n.openMaps()
	for f, err := range m.Flows() {
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range []netip.Addr{f.Source.Addr(), f.Destination.Addr(), f.Translated.Addr()} {
			if a == goes.IPv4 || a == goes.IPv6 {
				t.Errorf("flow is left: %+v", f)
			}
		}
	}
	for r, err := range m.IPCache() {
		if err != nil {
			t.Fatal(err)
		}
		if r.Slot == 2 || r.Prefix == hostPrefix(goes.IPv4) || r.Prefix == hostPrefix(goes.IPv6) {
			t.Errorf("ipcache row is left: %+v", r)
		}
	}
	for e, err := range m.Endpoints() {
		if err != nil {
			t.Fatal(err)
		}
		if e.Slot == 2 {
			t.Errorf("endpoint row is left: %+v", e)
		}
	}
	routes, err := ownRoutes(testHost(t, n.ns))
	if err != nil {
		t.Fatal(err)
	}
	for p := range routes {
		if p == hostPrefix(goes.IPv4) || p == hostPrefix(goes.IPv6) {
			t.Errorf("route is left: %s", p)
		}
	}
	if _, err := n.ns.Link(goes.IfName); err == nil {
		t.Error("device is left")
	}
	for _, name := range n.pinnedLinks() {
		if strings.HasPrefix(name, "65538_") {
			t.Errorf("link is left: %s", name)
		}
	}
	// The address and the slot go to somebody else at once.
	next := n.addEndpointIn(testNS(t, "next"), 2, "10.0.1.12", "fd00:1::12", 2002)
	echo(t, next.ns, 7)
	for _, a := range []netip.Addr{next.IPv4, next.IPv6} {
		if err := ask(stays.ns, "tcp", netip.AddrPortFrom(a, 7), 100); err != nil {
			t.Error(err)
		}
	}
	if err := n.d.DeleteEndpoint(t.Context(), 77); err != nil {
		t.Errorf("an endpoint that never was: %v", err)
	}
}

// pinnedLinks are the names below links.
func (n *testNode) pinnedLinks() []string {
	n.t.Helper()
	entries, err := os.ReadDir(pinsOf(n.cfg.BPFRoot, n.name).links())
	if err != nil {
		n.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestTakeOver_UnderTraffic(t *testing.T) {
	a, b := testPair(t, ModeVXLAN)
	a1 := a.addEndpoint(11, "10.0.1.11", "fd00:1::11", 1011)
	a2 := a.addEndpoint(12, "10.0.1.12", "fd00:1::12", 1012)
	b1 := b.addEndpoint(21, "10.0.2.21", "fd00:2::21", 1021)
	a.knows(b, b1)
	b.knows(a, a1, a2)
	waitIPCache(t, a, hostPrefix(b1.IPv4))
	waitIPCache(t, b, hostPrefix(a1.IPv4))
	for _, ep := range []testEndpoint{a2, b1} {
		echo(t, ep.ns, 7)
	}
	conns := []net.Conn{
		dial(t, a1.ns, netip.AddrPortFrom(a2.IPv4, 7)),
		dial(t, a1.ns, netip.AddrPortFrom(b1.IPv4, 7)),
		dial(t, a1.ns, netip.AddrPortFrom(b1.IPv6, 7)),
	}
	stop := make(chan struct{})
	lost := make(chan error, len(conns))
	for _, c := range conns {
		go func() {
			for {
				if err := exchange(c, 1000); err != nil {
					lost <- err
					return
				}
				select {
				case <-stop:
					lost <- nil
					return
				default:
				}
			}
		}()
	}
	for range 3 {
		a.restart()
	}
	close(stop)
	for range conns {
		if err := <-lost; err != nil {
			t.Error(err)
		}
	}
	if n := a.drops() + b.drops(); n != 0 {
		t.Errorf("%d packets were dropped", n)
	}
	// Nobody is there, and new connections come about.
	a.stop()
	if err := ask(a1.ns, "tcp", netip.AddrPortFrom(b1.IPv4, 7), 1000); err != nil {
		t.Errorf("new connection without an agent: %v", err)
	}
}

func TestTakeOver_MapsOfAnotherSize(t *testing.T) {
	n := testLonely(t, "resize", ModeNative)
	n.start()
	a := n.addEndpoint(1, "10.0.1.11", "", 1001)
	b := n.addEndpoint(2, "10.0.1.12", "", 1002)
	echo(t, b.ns, 7)
	conn := dial(t, a.ns, netip.AddrPortFrom(b.IPv4, 7))
	if err := exchange(conn, 100); err != nil {
		t.Fatal(err)
	}
	flows := func() int {
		count := 0
		for _, err := range n.openMaps().Flows() {
			if err != nil {
				t.Fatal(err)
			}
			count++
		}
		return count
	}
	before := flows()
	n.stop()
	n.cfg.MaxFlows *= 2
	n.cfg.MaxIPCache *= 2
	n.start()
	if after := flows(); after < before || before == 0 {
		t.Errorf("%d flows, %d before", after, before)
	}
	if err := exchange(conn, 100); err != nil {
		t.Error(err)
	}
	versions, err := pinsOf(n.cfg.BPFRoot, n.name).versions()
	if err != nil || !slices.Equal(versions, []int{2}) {
		t.Errorf("versions of maps: %v, %v; want only the second", versions, err)
	}
	if n.drops() != 0 {
		t.Error("packets were dropped")
	}
}

func TestTakeOver_Leftovers(t *testing.T) {
	n := testLonely(t, "left", ModeNative)
	n.start()
	stays := n.addEndpoint(1, "10.0.1.11", "", 1001)
	old := n.addEndpoint(2, "10.0.1.12", "", 1002)
	cut := n.addEndpoint(3, "10.0.1.13", "", 1003)
	n.stop()

	// While nobody looks, one endpoint is forgotten and the device of another goes.
	if err := n.ns.DeleteLink(cut.IfName); err != nil {
		t.Fatal(err)
	}
	n.tables = testTables()
	n.tables.Endpoints.Put("test", 0, stays.Slot, stays.LocalEndpoint)
	n.tables.Endpoints.Put("test", 0, cut.Slot, cut.LocalEndpoint)
	n.start()
	if err := n.d.WaitEndpoint(t.Context(), stays.Slot); err != nil {
		t.Fatal(err)
	}
	if _, err := n.ns.Link(old.IfName); err != nil {
		t.Error("a device is gone before anybody said that nobody wants it")
	}
	for _, name := range n.pinnedLinks() {
		if strings.HasPrefix(name, "65539_") {
			t.Errorf("the link of a device that is gone is still there: %s", name)
		}
	}
	markSynced(n.tables)
	eventually(t, func() error {
		if _, err := n.ns.Link(old.IfName); err == nil {
			return errors.New("the forgotten endpoint's device is still there")
		}
		return nil
	})
	if _, err := n.ns.Link(stays.IfName); err != nil {
		t.Error(err)
	}
	eventually(t, func() error {
		for _, l := range n.d.Status() {
			if l.Name == "endpoints" && l.State == Fail && strings.Contains(l.Reason, cut.Name) {
				return nil
			}
		}
		return errorf("status does not name the endpoint without a device: %+v", n.d.Status())
	})
}

func TestKeeper_Repairs(t *testing.T) {
	n := testLonely(t, "keep", ModeVXLAN)
	n.start()
	ep := n.addEndpoint(1, "10.0.1.11", "fd00:1::11", 1001)
	route := func(argv ...string) { mustRun(t, n.ns, append([]string{"ip"}, argv...)...) }
	tests := []struct {
		name  string
		spoil func()
		where *netns.NS
		look  []string
		want  string
	}{
		{
			"route-of-an-endpoint", func() { route("route", "del", "10.0.1.11") }, n.ns,
			[]string{"ip", "route", "show", "10.0.1.11"}, ep.IfName,
		},
		{
			"route-of-our-pods", func() { route("-6", "route", "del", "unreachable", "fd00:1::/64") }, n.ns,
			[]string{"ip", "-6", "route", "show", "fd00:1::/64"}, "unreachable",
		},
		{
			"forwarding", func() { set(t, n.ns, "net/ipv4/ip_forward", "0") }, n.ns,
			[]string{"cat", "/proc/sys/net/ipv4/ip_forward"}, "1",
		},
		{
			"forwarding6", func() { set(t, n.ns, "net/ipv6/conf/all/forwarding", "0") }, n.ns,
			[]string{"cat", "/proc/sys/net/ipv6/conf/all/forwarding"}, "1",
		},
		{
			"strict-reverse-path", func() { set(t, n.ns, "net/ipv4/conf/all/rp_filter", "1") }, n.ns,
			[]string{"cat", "/proc/sys/net/ipv4/conf/eth0/rp_filter"}, "2",
		},
		{
			"redirects", func() { set(t, n.ns, "net/ipv4/conf/all/send_redirects", "1") }, n.ns,
			[]string{"cat", "/proc/sys/net/ipv4/conf/all/send_redirects"}, "0",
		},
		{
			"own-device", func() { route("link", "del", hostDevice) }, n.ns,
			[]string{"ip", "link", "show", hostDevice}, "UP",
		},
		{
			"tunnel-device", func() { route("link", "del", vxlanDevice) }, n.ns,
			[]string{"ip", "link", "show", vxlanDevice}, "UP",
		},
		{
			"mtu-of-the-device", func() { route("link", "set", "eth0", "mtu", "9000") }, n.ns,
			[]string{"ip", "link", "show", ep.IfName}, "mtu 9000",
		},
		{
			"mtu-of-the-path", func() { route("link", "set", "eth0", "mtu", "1400") }, ep.ns,
			[]string{"ip", "route", "show", "default"}, "mtu 1350",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.spoil()
			eventually(t, func() error {
				out, err := run(t, tt.where, tt.look...)
				if err != nil || !strings.Contains(out, tt.want) {
					return errorf("%s: %v, no %q in %s", strings.Join(tt.look, " "), err, tt.want, out)
				}
				return nil
			})
		})
	}
	// The programs are on the new devices, too.
	links := n.pinnedLinks()
	for _, program := range []string{"from_host", "from_overlay", "from_netdev", "from_endpoint", "to_endpoint"} {
		if !slices.ContainsFunc(links, func(l string) bool { return strings.HasSuffix(l, "_"+program) }) {
			t.Errorf("no link of %s in %v", program, links)
		}
	}
	said := map[string]bool{}
	for _, l := range n.d.Status() {
		said[l.Name+" "+l.State.String()] = true
	}
	if !said["routes warning"] || !said["sysctls warning"] || !said["devices ok"] {
		t.Errorf("status: %+v", n.d.Status())
	}
}

func set(t *testing.T, ns *netns.NS, name, value string) {
	t.Helper()
	if err := ns.SetSysctl(name, value); err != nil {
		t.Fatal(err)
	}
}

func TestRun_NameClash(t *testing.T) {
	for _, device := range []string{hostDevice, netDevice, vxlanDevice} {
		t.Run(device, func(t *testing.T) {
			n := testLonely(t, "clash", ModeVXLAN)
			if err := n.ns.AddLink(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: device}}); err != nil {
				t.Fatal(err)
			}
			d, err := New(n.cfg, n.tables, discard(), nil)
			if err != nil {
				t.Fatal(err)
			}
			err = d.Run(t.Context())
			var clash *NameClashError
			if !errors.As(err, &clash) || clash.Device != device {
				t.Errorf("run: %v, want a clash about %s", err, device)
			}
		})
	}
}

func TestRun_TunnelPortTaken(t *testing.T) {
	n := testLonely(t, "port", ModeVXLAN)
	other := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "flannel.1"}, FlowBased: true, Port: vxlanPort}
	if err := n.ns.AddLink(other); err != nil {
		t.Fatal(err)
	}
	d, err := New(n.cfg, n.tables, discard(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var clash *NameClashError
	if err := d.Run(t.Context()); !errors.As(err, &clash) {
		t.Errorf("run: %v, want a clash", err)
	}
}

func TestRun_NoBPFFileSystem(t *testing.T) {
	n := testLonely(t, "nofs", ModeNative)
	n.cfg.BPFRoot = t.TempDir()
	d, err := New(n.cfg, n.tables, discard(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "bpf file system") {
		t.Errorf("run: %v", err)
	}
}

func TestCleanup_LeavesNothing(t *testing.T) {
	for _, mode := range []Mode{ModeNative, ModeVXLAN} {
		t.Run(mode.String(), func(t *testing.T) {
			n := testLonely(t, "clean.up", mode)
			n.start()
			n.addEndpoint(1, "10.0.1.11", "fd00:1::11", 1001)
			n.stop()
			for range 2 { // the second time there is nothing
				err := Cleanup(t.Context(), CleanupConfig{BPFRoot: n.cfg.BPFRoot, NodeName: n.name, NetNS: n.cfg.NetNS})
				if err != nil {
					t.Fatal(err)
				}
			}
			if _, err := os.Stat(filepath.Join(n.cfg.BPFRoot, "weft")); err == nil {
				t.Error("pins are left")
			}
			out := mustRun(t, n.ns, "ip", "link")
			for _, name := range []string{"lxc", "weft"} {
				if strings.Contains(out, ": "+name) {
					t.Errorf("devices are left:\n%s", out)
				}
			}
			routes, err := ownRoutes(testHost(t, n.ns))
			if err != nil || len(routes) > 0 {
				t.Errorf("routes are left: %v %v", routes, err)
			}
		})
	}
}
