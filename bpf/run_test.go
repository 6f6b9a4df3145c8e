// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/weft-net/weft/internal/netns"
)

// rig is a node without a network: programs run on it by BPF_PROG_TEST_RUN, on real devices with
// the right indexes but with nobody behind them.
type rig struct {
	*Objects
	t     testing.TB
	ns    *netns.NS
	wire  uint32 // index of the underlay device
	hosts uint32 // index of weft_host
}

var (
	gatewayMAC = [6]byte(DefaultConfig().GatewayMAC)
	podMAC     = [6]byte{2, 0, 0, 0, 1, 1}
	podMAC2    = [6]byte{2, 0, 0, 0, 1, 2}
	peerMAC    = [6]byte{2, 0, 0, 0, 2, 0}
	wireMAC    = [6]byte{2, 0, 0, 0, 1, 0}
)

const (
	podIdentity   = 1001
	podIdentity2  = 1002
	otherIdentity = 2001
)

// addresses of a family: two endpoints here, one there, the nodes, and something in the world.
type addresses struct {
	pod, pod2, other, self, peer, world, vip netip.Addr
}

var (
	ipv4 = addresses{
		pod: netip.MustParseAddr("10.1.0.1"), pod2: netip.MustParseAddr("10.1.0.2"), other: netip.MustParseAddr("10.2.0.1"),
		self: netip.MustParseAddr("192.0.2.1"), peer: netip.MustParseAddr("192.0.2.2"), world: netip.MustParseAddr("198.51.100.1"), vip: vip4,
	}
	ipv6 = addresses{
		pod: netip.MustParseAddr("fd00:1::1"), pod2: netip.MustParseAddr("fd00:1::2"), other: netip.MustParseAddr("fd00:2::1"),
		self: netip.MustParseAddr("2001:db8::1"), peer: netip.MustParseAddr("2001:db8::2"), world: netip.MustParseAddr("2001:db8:ffff::1"), vip: vip6,
	}
)

// newRig makes a node with two endpoints and a peer with one, reached as the mode says.
func newRig(t testing.TB, cfg Config, m mode) *rig {
	t.Helper()
	netns.RequireRoot(t)
	r := &rig{Objects: load(t, cfg), t: t, ns: newNS(t, "rig")}
	must(t, r.ns.SetForwarding(true))
	far := newNS(t, "far")
	for slot, mac := range map[int][6]byte{1: podMAC, 2: podMAC2} {
		name := "lxc" + string(rune('0'+slot))
		must(t, netns.VethPair(
			netns.End{NS: r.ns, Name: name, MAC: cfg.GatewayMAC, Index: int(cfg.EndpointIfindexBase) + slot},
			netns.End{NS: far, Name: name, MAC: mac[:]}, 1500))
	}
	must(t, netns.VethPair(netns.End{NS: r.ns, Name: "eth0", MAC: wireMAC[:]}, netns.End{NS: far, Name: "eth0", MAC: peerMAC[:]}, 1500))
	must(t, netns.VethPair(netns.End{NS: r.ns, Name: "weft_host"}, netns.End{NS: r.ns, Name: "weft_net"}, 1500))
	r.wire, r.hosts = r.index("eth0"), r.index("weft_host")

	row := Node{Flags: m.flags, Mtu: 1500, Ipv4: Address(ipv4.peer), Ipv6: Address(ipv6.peer)}
	r.put(r.Nodes, uint32(0), Node{Ipv4: Address(ipv4.self), Ipv6: Address(ipv6.self)})
	r.put(r.Nodes, uint32(1), row)
	r.put(r.Endpoints, uint32(1), Endpoint{Identity: podIdentity, Ipv4: Address(ipv4.pod), Ipv6: Address(ipv6.pod), Mac: podMAC, Mtu: 1500})
	r.put(r.Endpoints, uint32(2), Endpoint{Identity: podIdentity2, Ipv4: Address(ipv4.pod2), Ipv6: Address(ipv6.pod2), Mac: podMAC2, Mtu: 1500})
	for _, a := range []addresses{ipv4, ipv6} {
		must(t, r.ns.AddAddr("eth0", netip.PrefixFrom(a.self, a.self.BitLen()-8)))
		must(t, r.ns.AddNeighbour("eth0", a.peer, peerMAC[:]))
		must(t, r.ns.AddRoute(netns.Route{To: netip.PrefixFrom(a.other, a.other.BitLen()), Via: a.peer}))
		r.put(r.Ipcache, AddressKey{Address: Address(a.pod)}, IPCacheEntry{Identity: podIdentity, Endpoint: 1})
		r.put(r.Ipcache, AddressKey{Address: Address(a.pod2)}, IPCacheEntry{Identity: podIdentity2, Endpoint: 2})
		r.put(r.Ipcache, AddressKey{Address: Address(a.other)}, IPCacheEntry{Identity: otherIdentity, Node: 1})
		r.put(r.Ipcache, AddressKey{Address: Address(a.self)}, IPCacheEntry{Identity: 1, Flags: IPCacheHost})
		r.put(r.Ipcache, AddressKey{Address: Address(a.peer)}, IPCacheEntry{Identity: 6, Node: 1, Flags: IPCacheNode})
	}
	r.raise()
	return r
}

func (r *rig) index(name string) uint32 {
	r.t.Helper()
	var index int
	must(r.t, r.ns.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err == nil {
			index = l.Attrs().Index
		}
		return err
	}))
	return uint32(index)
}

func (r *rig) put(m *ebpf.Map, key, value any) {
	r.t.Helper()
	must(r.t, m.Put(key, value))
}

func (r *rig) raise() {
	r.t.Helper()
	var g uint32
	must(r.t, r.Generation.Lookup(uint32(0), &g))
	r.put(r.Generation, uint32(0), g+1)
}

// skbContext is struct __sk_buff as far as a test sets it.
type skbContext struct {
	Len, PktType, Mark, QueueMapping, Protocol, VlanPresent, VlanTCI, VlanProto uint32
	Priority, IngressIfindex, Ifindex                                           uint32
	Rest                                                                        [37]uint32
}

// run gives a frame to a program on a device and returns the verdict and the frame after.
func (r *rig) run(program *ebpf.Program, ifindex uint32, in []byte) (verdict uint32, out []byte) {
	r.t.Helper()
	verdict, out, err := r.tryRun(program, ifindex, in)
	must(r.t, err)
	return verdict, out
}

func (r *rig) tryRun(program *ebpf.Program, ifindex uint32, in []byte) (verdict uint32, out []byte, err error) {
	opts := &ebpf.RunOptions{Data: in, DataOut: make([]byte, len(in)+256), Context: skbContext{Ifindex: ifindex}}
	err = r.ns.Do(func() (err error) {
		verdict, err = program.Run(opts)
		return err
	})
	return verdict, opts.DataOut, err
}

func lxc(slot uint32) uint32 { return DefaultConfig().EndpointIfindexBase + slot }
