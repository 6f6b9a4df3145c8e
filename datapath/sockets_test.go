// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/internal/cgroup"
	"github.com/weft-net/weft/internal/netns"
	"github.com/weft-net/weft/service"
	"github.com/weft-net/weft/state"
)

var (
	socketVIP4 = netip.MustParseAddrPort("10.96.0.10:80")
	socketVIP6 = netip.MustParseAddrPort("[fd00:96::10]:80")
)

// testSockets is a node with two endpoints, and a service of both families with the second as backend.
func testSockets(t *testing.T, lb SocketLB, group string) (n *testNode, client, server testEndpoint) {
	t.Helper()
	n = testLonely(t, "sock", ModeNative)
	n.cfg.SocketLB, n.cfg.SocketCgroup, n.reg = lb, group, prometheus.NewRegistry()
	n.start()
	client = n.addEndpoint(1, "10.0.1.11", "fd00:1::11", 1001)
	server = n.addEndpoint(2, "10.0.1.12", "fd00:1::12", 1002)
	echo(t, server.ns, 7)
	for vip, backend := range map[netip.AddrPort]netip.Addr{socketVIP4: server.IPv4, socketVIP6: server.IPv6} {
		for _, protocol := range []uint8{6, 17} {
			f := service.Frontend{Addr: vip, Protocol: protocolOf(protocol)}
			n.tables.Frontends.Put("test", 0, f, service.Service{
				Chosen: 1, Backends: []service.Backend{{Addr: netip.AddrPortFrom(backend, 7)}},
			})
			eventually(t, func() error { return written(n.d.FrontendOutcome(f)) })
		}
	}
	return n, client, server
}

// metric is the sum of a metric's series.
func (n *testNode) metric(name string) (sum float64) {
	n.t.Helper()
	families, err := n.reg.(*prometheus.Registry).Gather()
	if err != nil {
		n.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

func written(o state.Outcome, ok bool) error {
	if !ok || !o.Done {
		return fmt.Errorf("not written: %+v", o)
	}
	return nil
}

// served is which namespaces the programs serve: slots by cookie.
func (n *testNode) served() map[uint64]uint32 {
	n.t.Helper()
	found := map[uint64]uint32{}
	var cookie uint64
	var row bpf.Namespace
	rows := n.d.engine.Load().sockets.objects.Namespaces.Iterate()
	for rows.Next(&cookie, &row) {
		found[cookie] = row.Slot
	}
	if err := rows.Err(); err != nil {
		n.t.Fatal(err)
	}
	return found
}

// awaitServed waits until exactly these namespaces are served.
func (n *testNode) awaitServed(want map[*netns.NS]uint32) {
	n.t.Helper()
	cookies := map[uint64]uint32{}
	for ns, slot := range want {
		cookie, err := ns.Cookie()
		if err != nil {
			n.t.Fatal(err)
		}
		cookies[cookie] = slot
	}
	eventually(n.t, func() error {
		if diff := cmp.Diff(cookies, n.served()); diff != "" {
			return fmt.Errorf("namespaces served (-want +got):\n%s", diff)
		}
		return nil
	})
}

// flowsTo counts the entries of connections that were opened to an address.
func (n *testNode) flowsTo(to netip.AddrPort) int {
	n.t.Helper()
	count := 0
	for f, err := range n.openMaps().Flows() {
		if err != nil {
			n.t.Fatal(err)
		}
		if f.Destination == to && !f.Reply {
			count++
		}
	}
	return count
}

// attached counts the programs of a cgroup at connect.
func attached(t *testing.T, group string) int {
	t.Helper()
	f, err := os.Open(group)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found, err := link.QueryPrograms(link.QueryOptions{Target: int(f.Fd()), Attach: ebpf.AttachCGroupInet4Connect})
	if err != nil {
		t.Fatal(err)
	}
	return len(found.Programs)
}

// socketLine is the line of the status.
func (n *testNode) socketLine() Line {
	for _, l := range n.d.Status() {
		if l.Name == "sockets" {
			return l
		}
	}
	return Line{}
}

func TestSockets_Served(t *testing.T) {
	group := cgroup.Join(t)
	for _, lb := range []SocketLB{SocketLBHost, SocketLBAll} {
		t.Run(lb.String(), func(t *testing.T) {
			n, client, server := testSockets(t, lb, group)
			served := map[*netns.NS]uint32{n.ns: 0}
			if lb == SocketLBAll {
				served[client.ns], served[server.ns] = 1, 2
			}
			n.awaitServed(served)
			for _, vip := range []netip.AddrPort{socketVIP4, socketVIP6} {
				backend := netip.AddrPortFrom(server.IPv4, 7)
				if vip.Addr().Is6() {
					backend = netip.AddrPortFrom(server.IPv6, 7)
				}
				// The last one reaches itself.
				for _, from := range []*netns.NS{n.ns, client.ns, server.ns} {
					_, atSocket := served[from]
					translated, direct := n.flowsTo(vip), n.flowsTo(backend)
					for _, network := range []string{"tcp", "udp"} {
						if network == "udp" && from == server.ns && !atSocket {
							continue // an echo of UDP answers from where the route points
						}
						conn := dialOver(t, from, network, vip)
						if got := conn.RemoteAddr().String(); got != vip.String() {
							t.Errorf("%s from %s: the peer is %s, want %s", network, from.Name(), got, vip)
						}
						if err := exchange(conn, 1000); err != nil {
							t.Errorf("%s from %s to %s: %v", network, from.Name(), vip, err)
						}
						conn.Close() // while its endpoint can still tell the other end
					}
					switch translated, direct = n.flowsTo(vip)-translated, n.flowsTo(backend)-direct; {
					case atSocket && translated != 0:
						t.Errorf("%s to %s: %d connections were translated by the packet", from.Name(), vip, translated)
					case !atSocket && (translated == 0 || direct != 0):
						t.Errorf("%s to %s: %d connections were translated by the packet, %d at the socket", from.Name(), vip, translated, direct)
					}
				}
			}
			if l := n.socketLine(); l.State != OK || !strings.Contains(l.Text, group) {
				t.Errorf("status: %+v", l)
			}
			// TCP and UDP of both families, from each who is served.
			if got, want := n.metric("weft_datapath_socket_backends_total"), float64(4*len(served)); got != want {
				t.Errorf("%v backends were given, want %v", got, want)
			}
			if got := n.metric("weft_datapath_sockets_attached"); got != 1 {
				t.Errorf("attached: %v", got)
			}
			n.deleteEndpoint(client)
			delete(served, client.ns)
			n.awaitServed(served)
			if n.drops() != 0 {
				t.Error("packets were dropped")
			}
		})
	}
}

// dialOver opens a connection that ends with the test.
func dialOver(t *testing.T, ns *netns.NS, network string, to netip.AddrPort) (conn net.Conn) {
	t.Helper()
	err := ns.Do(func() (err error) {
		conn, err = net.DialTimeout(network, to.String(), testPatience)
		return err
	})
	if err != nil {
		t.Fatalf("%s from %s to %s: %v", network, ns.Name(), to, err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// askFrom sends a datagram from an unconnected socket and returns who answered.
func askFrom(t *testing.T, conn net.PacketConn, to netip.AddrPort) netip.AddrPort {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(testPatience)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.WriteTo([]byte("weft"), net.UDPAddrFromAddrPort(to)); err != nil {
		t.Fatal(err)
	}
	_, from, err := conn.ReadFrom(make([]byte, 64))
	if err != nil {
		t.Fatal(err)
	}
	return from.(*net.UDPAddr).AddrPort()
}

func TestSockets_TakeOverAndOff(t *testing.T) {
	group := cgroup.Join(t)
	n, client, server := testSockets(t, SocketLBAll, group)
	n.awaitServed(map[*netns.NS]uint32{n.ns: 0, client.ns: 1, server.ns: 2})
	conns := []net.Conn{dialOver(t, client.ns, "tcp", socketVIP4), dialOver(t, n.ns, "tcp", socketVIP6), dialOver(t, client.ns, "udp", socketVIP6)}
	var packets net.PacketConn
	if err := client.ns.Do(func() (err error) {
		packets, err = net.ListenPacket("udp4", ":0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	check := func(when string) {
		t.Helper()
		for _, c := range conns {
			if err := exchange(c, 1000); err != nil {
				t.Errorf("%s: %s to %s: %v", when, c.RemoteAddr().Network(), c.RemoteAddr(), err)
			}
		}
		if got := askFrom(t, packets, socketVIP4); got != socketVIP4 {
			t.Errorf("%s: %s answers, want %s", when, got, socketVIP4)
		}
	}
	check("before")
	links := n.socketLinks()
	n.reg = nil // a second datapath would be registered twice
	n.restart()
	check("after a restart")
	if diff := cmp.Diff(links, n.socketLinks()); diff != "" || len(links) != 8 {
		t.Errorf("links by program (-before +after):\n%s", diff)
	}
	if got := attached(t, group); got != 1 {
		t.Errorf("%d programs at connect, want 1", got)
	}

	n.stop()
	n.cfg.MaxSockets *= 2
	n.start()
	check("with another size of the map")

	n.stop()
	n.cfg.SocketLB = SocketLBOff
	n.start()
	if got := attached(t, group); got != 0 {
		t.Errorf("%d programs at connect when it is off", got)
	}
	if l := n.socketLine(); l.State != Off {
		t.Errorf("status: %+v", l)
	}
	for _, name := range []string{"sockets", "namespaces", "socket_counts"} {
		found, err := filepath.Glob(filepath.Join(string(pinsOf(n.cfg.BPFRoot, n.name)), "maps*", name))
		if err != nil || len(found) > 0 {
			t.Errorf("pins are left: %v %v", found, err)
		}
	}
	for _, c := range conns {
		if err := exchange(c, 1000); err != nil {
			t.Errorf("off: %v", err)
		}
	}
	if err := ask(client.ns, "tcp", socketVIP4, 1000); err != nil {
		t.Errorf("off: new connection: %v", err)
	}
	if n.flowsTo(socketVIP4) == 0 {
		t.Error("off: the new connection was not translated by the packet")
	}
}

// socketLinks are the numbers of the pinned links, by program.
func (n *testNode) socketLinks() map[string]link.ID {
	n.t.Helper()
	dir := pinsOf(n.cfg.BPFRoot, n.name).sockets()
	entries, err := os.ReadDir(dir)
	if err != nil {
		n.t.Fatal(err)
	}
	ids := map[string]link.ID{}
	for _, e := range entries {
		l, err := link.LoadPinnedLink(filepath.Join(dir, e.Name()), nil)
		if err != nil {
			n.t.Fatal(err)
		}
		info, err := l.Info()
		l.Close()
		if err != nil {
			n.t.Fatal(err)
		}
		ids[e.Name()] = info.ID
	}
	return ids
}

// TestSockets_Cgroup: without a cgroup that fits services work by the packet and the status says why;
// when there is one the programs are attached.
func TestSockets_Cgroup(t *testing.T) {
	group := filepath.Join(cgroup.Join(t), "later")
	n, client, _ := testSockets(t, SocketLBAll, group)
	if l := n.socketLine(); l.State != Warn || !strings.Contains(l.Reason, group) || l.Do == "" {
		t.Errorf("status: %+v", l)
	}
	if err := ask(client.ns, "tcp", socketVIP4, 1000); err != nil {
		t.Error(err)
	}
	for range 2 { // the second time the links are of a cgroup that is gone
		if err := os.Mkdir(group, 0o755); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if l := n.socketLine(); l.State != OK {
				return fmt.Errorf("status: %+v", l)
			}
			if attached(t, group) != 1 {
				return errors.New("no program is attached")
			}
			return nil
		})
		if err := os.Remove(group); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if l := n.socketLine(); l.State != Warn {
				return fmt.Errorf("status: %+v", l)
			}
			return nil
		})
	}
	n.stop()
	n.cfg.SocketCgroup, n.reg = t.TempDir(), nil
	n.start()
	if l := n.socketLine(); l.State != Warn || !strings.Contains(l.Reason, "not of version 2") {
		t.Errorf("status: %+v", l)
	}
}

func TestSockets_Cleanup(t *testing.T) {
	group := cgroup.Join(t)
	n := testLonely(t, "sock", ModeNative)
	n.cfg.SocketLB, n.cfg.SocketCgroup = SocketLBHost, group
	n.start()
	n.stop()
	if got := attached(t, group); got != 1 {
		t.Fatalf("%d programs at connect, want 1", got)
	}
	if err := Cleanup(t.Context(), CleanupConfig{BPFRoot: n.cfg.BPFRoot, NodeName: n.name, NetNS: n.cfg.NetNS}); err != nil {
		t.Fatal(err)
	}
	if got := attached(t, group); got != 0 {
		t.Errorf("%d programs are left at connect", got)
	}
	if _, err := os.Stat(filepath.Join(n.cfg.BPFRoot, "weft")); err == nil {
		t.Error("pins are left")
	}
}
