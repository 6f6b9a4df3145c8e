// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/bpf/model"
	"github.com/weft-net/weft/internal/netns"
)

// The world of the tests: one node with five endpoint devices and one native device, whose
// neighbours and routes are fixed, so that the model knows what the kernel will answer.
//
//	endpoint s            10.1.0.s     fd01::s     lxc<s>
//	this node             10.9.0.1     fd09::1     eth0
//	native peer, node 2   10.9.0.2     fd09::2     endpoints 10.2.0.x  fd02::x
//	tunnel peer, node 3   10.9.0.3     fd09::3     endpoints 10.3.0.x  fd03::x, outer IPv4
//	tunnel peer, node 4   10.9.0.4     fd09::4     endpoints 10.4.0.x  fd04::x, outer IPv6
//	lost peer, node 5     no neighbour             endpoints 10.5.0.x  fd05::x
//	nowhere, node 6       no route                 endpoints 10.6.0.x  fd06::x
//	the world             192.0.2.x    2001:db8::x by the default route
const (
	base      = 0x10000
	endpoints = 5
)

type world struct {
	ns      *netns.NS
	eth0    uint32
	eth0MAC [6]byte
}

func v4(format string, a ...any) netip.Addr { return netip.MustParseAddr(fmt.Sprintf(format, a...)) }

func endpointAddr(slot int, family uint8) netip.Addr {
	return podAddr(1, slot, family)
}

func podAddr(node, n int, family uint8) netip.Addr {
	if family == 4 {
		return v4("10.%d.0.%d", node, n)
	}
	return v4("fd%02d::%d", node, n)
}

func nodeAddr(node int, family uint8) netip.Addr { return podAddr(9, node, family) }

func mac(kind, n byte) [6]byte { return [6]byte{0x02, 0, 0, 0, kind, n} }

func endpointMAC(slot int) [6]byte { return mac(0xe, byte(slot)) }

func newWorld(t testing.TB) *world {
	t.Helper()
	netns.RequireRoot(t)
	ns := newNS(t, "node")
	out := newNS(t, "out")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(ns.SetForwarding(true))
	gateway := bpf.DefaultConfig().GatewayMAC
	for s := 1; s <= endpoints; s++ {
		inside := endpointMAC(s)
		must(netns.VethPair(
			netns.End{NS: ns, Name: fmt.Sprintf("lxc%d", s), MAC: gateway, Index: base + s},
			netns.End{NS: out, Name: fmt.Sprintf("pod%d", s), MAC: net.HardwareAddr(inside[:])}, 1500))
	}
	w := &world{ns: ns, eth0MAC: mac(9, 1)}
	must(netns.VethPair(
		netns.End{NS: ns, Name: "eth0", MAC: net.HardwareAddr(w.eth0MAC[:])},
		netns.End{NS: out, Name: "wire"}, 1500))
	link, err := ns.Link("eth0")
	must(err)
	w.eth0 = uint32(link.Index)
	for _, family := range []uint8{4, 6} {
		bits, pod := 24, 24
		if family == 6 {
			bits, pod = 64, 64
		}
		must(ns.AddAddr("eth0", netip.PrefixFrom(nodeAddr(1, family), bits)))
		for i := 2; i <= 4; i++ {
			m := mac(9, byte(i))
			must(ns.AddNeighbour("eth0", nodeAddr(i, family), net.HardwareAddr(m[:])))
		}
		for _, node := range []int{2, 5} {
			prefix := netip.PrefixFrom(podAddr(node, 0, family), pod).Masked()
			must(ns.AddRoute(netns.Route{To: prefix, Via: nodeAddr(node, family), Link: "eth0"}))
		}
	}
	return w
}

// newNS makes a namespace that is gone after the test.
func newNS(t testing.TB, suffix string) *netns.NS {
	t.Helper()
	ns, err := netns.New(fmt.Sprintf("model%d-%s", os.Getpid(), suffix))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Delete(); err != nil {
			t.Error(err)
		}
	})
	return ns
}

// route is what newWorld told the kernel.
func (w *world) route(_, to netip.Addr) model.Route {
	family := uint8(6)
	if to.Is4() {
		family = 4
	}
	r := model.Route{Found: true, Neighbour: true, Ifindex: w.eth0, Source: w.eth0MAC, MTU: 1500}
	node := 0
	for n := range 10 {
		bits := 64
		if family == 4 {
			bits = 24
		}
		if netip.PrefixFrom(podAddr(n, 0, family), bits).Contains(to) {
			node = n
		}
	}
	switch node {
	case 2, 5:
		r.NextHop = nodeAddr(node, family)
	case 9:
		r.NextHop = to
		as := to.As16()
		node = int(as[15])
	default:
		return model.Route{}
	}
	r.MAC = mac(9, byte(node))
	if node < 2 || node > 4 {
		r.Neighbour = false
	}
	return r
}
