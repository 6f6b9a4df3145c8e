// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/weft-net/weft/internal/netns"
)

var (
	any4 = netip.MustParsePrefix("0.0.0.0/0")
	any6 = netip.MustParsePrefix("::/0")
)

// node is a namespace with the programs attached as on a real node.
type node struct {
	*Objects
	t      *testing.T
	ns     *netns.NS
	number int // 1, 2, …
	addr4  netip.Addr
	addr6  netip.Addr
	host4  netip.Addr // this node's address inside the cluster network
	host6  netip.Addr
	pods   []*pod
}

// pod is a namespace with one device, an endpoint of a node.
type pod struct {
	ns       *netns.NS
	node     *node
	slot     uint16
	identity uint32
	addr4    netip.Addr
	addr6    netip.Addr
	mac      net.HardwareAddr
}

// mode is how nodes reach each other's endpoints.
type mode struct {
	name  string
	flags uint32 // of the row of a peer
}

func modes() []mode {
	return []mode{
		{"native", 0},
		{"vxlan-over-ipv4", NodeTunnel},
		{"vxlan-over-ipv6", NodeTunnel | NodeIPv6},
	}
}

// world is two nodes with a wire between them, two pods on the first and one on the second.
type world struct {
	a, b *node
}

func newNS(t testing.TB, name string) *netns.NS {
	t.Helper()
	ns, err := netns.New(fmt.Sprintf("bpf-%d-%s", os.Getpid(), name))
	must(t, err)
	t.Cleanup(func() { must(t, ns.Delete()) })
	return ns
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t *testing.T, m mode, mtu int) *world {
	t.Helper()
	netns.RequireRoot(t)
	w := &world{a: newNode(t, 1), b: newNode(t, 2)}
	must(t, netns.Veth(w.a.ns, "eth0", w.b.ns, "eth0", mtu))
	w.a.connect()
	w.b.connect()
	w.a.addPod(1)
	w.a.addPod(2)
	w.b.addPod(1)
	w.a.know(w.b, m, mtu)
	w.b.know(w.a, m, mtu)
	for _, n := range []*node{w.a, w.b} {
		for _, a := range []netip.Addr{n.addr4, n.addr6, n.host4, n.host6} {
			must(t, n.ns.AwaitAddr(a))
		}
		for _, p := range n.pods {
			must(t, p.ns.AwaitAddr(p.addr4))
			must(t, p.ns.AwaitAddr(p.addr6))
		}
	}
	return w
}

func newNode(t *testing.T, number int) *node {
	t.Helper()
	n := &node{
		Objects: load(t, small()), t: t, ns: newNS(t, fmt.Sprintf("node%d", number)), number: number,
		addr4: netip.AddrFrom4([4]byte{192, 0, 2, byte(number)}),
		addr6: netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", number)),
		host4: netip.AddrFrom4([4]byte{10, byte(number), 0, 254}),
		host6: netip.MustParseAddr(fmt.Sprintf("fd00:%d::fe", number)),
	}
	must(t, n.ns.SetForwarding(true))
	return n
}

// connect configures the underlay device and the host's own device in the cluster network.
func (n *node) connect() {
	t := n.t
	t.Helper()
	must(t, n.ns.AddAddr("eth0", netip.PrefixFrom(n.addr4, 24)))
	must(t, n.ns.AddAddr("eth0", netip.PrefixFrom(n.addr6, 64)))
	n.attach("eth0", n.FromNetdev, ebpf.AttachTCXIngress)

	must(t, netns.Veth(n.ns, "weft_host", n.ns, "weft_net", 1500))
	must(t, n.ns.AddAddr("weft_host", netip.PrefixFrom(n.host4, 32)))
	must(t, n.ns.AddAddr("weft_host", netip.PrefixFrom(n.host6, 128)))
	n.attach("weft_host", n.FromHost, ebpf.AttachTCXEgress)

	n.put(n.Nodes, uint32(0), Node{Ipv4: Address(n.addr4), Ipv6: Address(n.addr6)})
	for _, a := range []netip.Addr{n.addr4, n.addr6, n.host4, n.host6} {
		n.put(n.Ipcache, AddressKey{Address: Address(a)}, IPCacheEntry{Identity: 1, Flags: IPCacheHost})
	}
	n.raise()
}

func (n *node) attach(device string, program *ebpf.Program, where ebpf.AttachType) {
	n.t.Helper()
	attrs, err := n.ns.Link(device)
	must(n.t, err)
	must(n.t, n.ns.Do(func() error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: attrs.Index, Program: program, Attach: where})
		if err == nil {
			n.t.Cleanup(func() { l.Close() })
		}
		return err
	}))
}

func (n *node) put(m *ebpf.Map, key, value any) {
	n.t.Helper()
	must(n.t, m.Put(key, value))
}

// raise makes every entry of the flow table stale.
func (n *node) raise() {
	n.t.Helper()
	var g uint32
	must(n.t, n.Generation.Lookup(uint32(0), &g))
	n.put(n.Generation, uint32(0), g+1)
}

func (n *node) addPod(slot uint16) *pod {
	t := n.t
	t.Helper()
	cfg := small()
	p := &pod{
		ns: newNS(t, fmt.Sprintf("pod%d%d", n.number, slot)), node: n, slot: slot,
		identity: uint32(n.number)*1000 + uint32(slot),
		addr4:    netip.AddrFrom4([4]byte{10, byte(n.number), 0, byte(slot)}),
		addr6:    netip.MustParseAddr(fmt.Sprintf("fd00:%d::%d", n.number, slot)),
		mac:      net.HardwareAddr{2, 0, 0, 0, byte(n.number), byte(slot)},
	}
	lxc := fmt.Sprintf("lxc%d", slot)
	must(t, netns.VethPair(
		netns.End{NS: n.ns, Name: lxc, MAC: cfg.GatewayMAC, Index: int(cfg.EndpointIfindexBase) + int(slot)},
		netns.End{NS: p.ns, Name: "eth0", MAC: p.mac}, 1500))
	n.attach(lxc, n.FromEndpoint, ebpf.AttachTCXIngress)
	n.attach(lxc, n.ToEndpoint, ebpf.AttachTCXEgress)

	must(t, p.ns.AddAddr("eth0", netip.PrefixFrom(p.addr4, 32)))
	must(t, p.ns.AddAddr("eth0", netip.PrefixFrom(p.addr6, 128)))
	must(t, p.ns.AddRoute(netns.Route{To: any4, Via: cfg.GatewayIPv4, Link: "eth0", OnLink: true}))
	must(t, p.ns.AddRoute(netns.Route{To: any6, Via: cfg.GatewayIPv6, Link: "eth0", OnLink: true}))
	for _, a := range p.addrs() {
		must(t, n.ns.AddRoute(netns.Route{To: netip.PrefixFrom(a, a.BitLen()), Link: lxc, Source: n.host(a)}))
		n.put(n.Ipcache, AddressKey{Address: Address(a)}, IPCacheEntry{Identity: p.identity, Endpoint: slot})
	}
	n.put(n.Endpoints, uint32(slot), Endpoint{
		Identity: p.identity, Ipv4: Address(p.addr4), Ipv6: Address(p.addr6), Mac: [6]byte(p.mac), Mtu: 1500,
	})
	n.pods = append(n.pods, p)
	n.raise()
	return p
}

func (p *pod) addrs() []netip.Addr { return []netip.Addr{p.addr4, p.addr6} }

// addr is the pod's address of a family.
func (p *pod) addr(family int) netip.Addr {
	if family == 4 {
		return p.addr4
	}
	return p.addr6
}

func (n *node) host(like netip.Addr) netip.Addr {
	if like.Is4() {
		return n.host4
	}
	return n.host6
}

// know writes the rows for another node, its addresses and its pods.
func (n *node) know(peer *node, m mode, mtu int) {
	t := n.t
	t.Helper()
	index := uint32(peer.number)
	n.put(n.Nodes, index, Node{Ipv4: Address(peer.addr4), Ipv6: Address(peer.addr6), Flags: m.flags, Mtu: uint16(mtu)})
	inner := mtu
	switch {
	case m.flags&NodeIPv6 != 0:
		inner -= 70
	case m.flags&NodeTunnel != 0:
		inner -= 50
	}
	for _, a := range []netip.Addr{peer.host4, peer.host6} {
		n.put(n.Ipcache, AddressKey{Address: Address(a)}, IPCacheEntry{Identity: 6, Node: index, Flags: IPCacheNode})
	}
	for _, p := range peer.pods {
		for _, a := range p.addrs() {
			n.put(n.Ipcache, AddressKey{Address: Address(a)}, IPCacheEntry{Identity: p.identity, Node: index})
		}
	}
	for _, to := range []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(peer.number), 0, 0}), 24),
		netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("fd00:%d::", peer.number)), 64),
	} {
		route := netns.Route{To: to, Source: n.host(to.Addr()), MTU: inner}
		if m.flags&NodeTunnel != 0 {
			route.Link = "weft_host"
		} else if to.Addr().Is4() {
			route.Via = peer.addr4
		} else {
			route.Via = peer.addr6
		}
		must(t, n.ns.AddRoute(route))
	}
	if m.flags&NodeTunnel != 0 {
		must(t, n.hostNeighbours(peer))
	}
	for _, p := range n.pods {
		must(t, p.ns.AddRoute(netns.Route{To: any4, Via: small().GatewayIPv4, Link: "eth0", OnLink: true, MTU: inner}))
		must(t, p.ns.AddRoute(netns.Route{To: any6, Via: small().GatewayIPv6, Link: "eth0", OnLink: true, MTU: inner}))
	}
	n.raise()
}

// hostNeighbours turns neighbour discovery off where there is nobody to ask.
func (n *node) hostNeighbours(*node) error {
	h, err := n.ns.Handle()
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName("weft_host")
	if err != nil {
		return err
	}
	return h.LinkSetARPOff(l)
}

// dropped is the sum of a node's drops, with the reasons.
func (n *node) dropped() (total uint64, reasons string) {
	n.t.Helper()
	for r := range DropReasons {
		// Kernels announce themselves by multicast when a device comes up.
		if r == DropMulticast {
			continue
		}
		for _, d := range []uint8{Egress, Ingress} {
			if p := n.drops(r, d); p > 0 {
				total += p
				reasons += fmt.Sprintf(" %v/%d:%d", r, d, p)
			}
		}
	}
	return total, reasons
}

func (n *node) drops(reason DropReason, direction uint8) uint64 {
	n.t.Helper()
	return drops(n.t, n.Objects, reason, direction)
}

func drops(t testing.TB, o *Objects, reason DropReason, direction uint8) (packets uint64) {
	t.Helper()
	var perCPU []Counter
	must(t, o.Counters.Lookup(CounterIndex(reason, direction), &perCPU))
	for _, c := range perCPU {
		packets += c.Packets
	}
	return packets
}
