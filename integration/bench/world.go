// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/weft-net/weft/internal/netns"
)

// Variant is one way of getting packets from a client to a server.
type Variant struct {
	Name  string
	Build func(world *World) (Path, error)
}

// Path is a variant that stands: who talks to whom.
type Path struct {
	Client, Server *netns.NS
	Target         netip.AddrPort // where the client connects to
	Listen         netip.AddrPort // where the server listens; the zero value is Target
	Spread         int            // the client chooses among that many addresses, from Target on
	BeforeSlot     func(Workload) error
	Check          func() error // after the slots: did packets go where they should; nil: nothing to ask
	Programs       []Program    // whose run time is of interest
}

// Program is a BPF program of a path.
type Program struct {
	Name string // unique in the path: n1/from_endpoint
	*ebpf.Program
}

// World owns everything that a variant consists of. Close removes it, whatever was reached.
type World struct {
	prefix  string
	family  int // 4 or 6
	closers []func() error
	loaded  []Program
}

// newWorld prepares an empty world; prefix begins the names of its namespaces.
func newWorld(prefix string, family int) *World { return &World{prefix: prefix, family: family} }

// onClose registers a step of Close; the last registered is done first.
func (w *World) onClose(f func() error) { w.closers = append(w.closers, f) }

// Close removes the world. Closing twice does nothing more.
func (w *World) Close() error {
	var errs []error
	for i := len(w.closers) - 1; i >= 0; i-- {
		errs = append(errs, w.closers[i]())
	}
	w.closers = nil
	return errors.Join(errs...)
}

// namespace makes a namespace of the world.
func (w *World) namespace(name string) (*netns.NS, error) {
	ns, err := netns.New(w.prefix + "-" + name)
	if err != nil {
		return nil, err
	}
	w.onClose(ns.Delete)
	return ns, nil
}

// The plan of addresses. Worlds do not see each other, so all use the same.
const (
	slotBase = 0x10000 // index of an endpoint's host-side device = slotBase + slot
	wireDev  = "wire"
	podDev   = "eth0"
	wireMTU  = 1500
	port     = 7000
)

var (
	gatewayMAC = net.HardwareAddr{0x02, 0x77, 0x65, 0x66, 0x74, 0x01} // every endpoint's host side
	gateway4   = netip.MustParseAddr("169.254.1.1")
	gateway6   = netip.MustParseAddr("fe80::1")
)

// pick returns the address of the world's family.
func (w *World) pick(v4, v6 string) netip.Addr {
	if w.family == 6 {
		return netip.MustParseAddr(v6)
	}
	return netip.MustParseAddr(v4)
}

// host is a prefix of one address.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// Pod is an endpoint: a namespace with one device that leads to its node.
type Pod struct {
	NS   *netns.NS
	Addr netip.Addr
	MAC  net.HardwareAddr
	Slot int    // index of the host side = slotBase + Slot
	Host string // name of the host side
}

// Node is a node with one pod, or with two where there is no second node.
type Node struct {
	NS      *netns.NS
	Addr    netip.Addr       // on the wire
	MAC     net.HardwareAddr // of the wire's device
	WireIdx int              // index of the wire's device
	Pods    []Pod
}

// newNode makes a node that forwards.
func (w *World) newNode(number int) (*Node, error) {
	ns, err := w.namespace(fmt.Sprintf("n%d", number))
	if err != nil {
		return nil, err
	}
	if err := ns.SetForwarding(true); err != nil {
		return nil, err
	}
	return &Node{
		NS:   ns,
		Addr: w.pick(fmt.Sprintf("192.168.77.%d", number), fmt.Sprintf("fd77::%d", number)),
		MAC:  net.HardwareAddr{0x02, 0x77, 0x65, 0x66, 0x01, byte(number)},
	}, nil
}

// newPod makes a pod at a node. number is unique in the world; it decides address and slot.
func (w *World) newPod(node *Node, subnet, number int) error {
	ns, err := w.namespace(fmt.Sprintf("p%d", number))
	if err != nil {
		return err
	}
	pod := Pod{
		NS:   ns,
		Addr: w.pick(fmt.Sprintf("10.77.%d.%d", subnet, number), fmt.Sprintf("fd10:%d::%d", subnet, number)),
		MAC:  net.HardwareAddr{0x02, 0x77, 0x65, 0x66, 0x02, byte(number)},
		Slot: number,
		Host: fmt.Sprintf("lxc%d", number),
	}
	err = netns.VethPair(
		netns.End{NS: node.NS, Name: pod.Host, MAC: gatewayMAC, Index: slotBase + pod.Slot},
		netns.End{NS: ns, Name: podDev, MAC: pod.MAC}, wireMTU)
	if err != nil {
		return err
	}
	gateway, all := gateway4, netip.MustParsePrefix("0.0.0.0/0")
	if w.family == 6 {
		gateway, all = gateway6, netip.MustParsePrefix("::/0")
	}
	for _, step := range []func() error{
		func() error { return ns.AddAddr(podDev, host(pod.Addr)) },
		func() error { return ns.AddNeighbour(podDev, gateway, gatewayMAC) },
		func() error { return ns.AddRoute(netns.Route{To: all, Via: gateway, Link: podDev, OnLink: true}) },
		func() error { return node.NS.AddRoute(netns.Route{To: host(pod.Addr), Link: pod.Host}) },
		func() error { return node.NS.AddNeighbour(pod.Host, pod.Addr, pod.MAC) },
		func() error { return tuneClient(ns) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	node.Pods = append(node.Pods, pod)
	return nil
}

// tuneClient lets a client connect some 40,000 times a second: all ports, used again at once. Few
// retries, so that a path that does not work is found out. The reuse delay, in ms, is a second else.
func tuneClient(ns *netns.NS) error {
	for _, s := range [][2]string{
		{"net/ipv4/ip_local_port_range", "1024 65535"},
		{"net/ipv4/tcp_tw_reuse", "1"},
		{"net/ipv4/tcp_tw_reuse_delay", "1"},
		{"net/ipv4/tcp_syn_retries", "1"},
		{"net/ipv4/tcp_retries2", "3"},
		// One that paces (BBR) would measure its own timers.
		{"net/ipv4/tcp_congestion_control", "reno"},
	} {
		if err := ns.SetSysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

// newWire joins two nodes by a veth pair.
func (w *World) newWire(a, b *Node) error {
	err := netns.VethPair(netns.End{NS: a.NS, Name: wireDev, MAC: a.MAC}, netns.End{NS: b.NS, Name: wireDev, MAC: b.MAC}, wireMTU)
	if err != nil {
		return err
	}
	bits := 24
	if w.family == 6 {
		bits = 64
	}
	for _, n := range []*Node{a, b} {
		if err := n.NS.AddAddr(wireDev, netip.PrefixFrom(n.Addr, bits)); err != nil {
			return err
		}
		l, err := n.NS.Link(wireDev)
		if err != nil {
			return err
		}
		n.WireIdx = l.Index
		if err := tuneClient(n.NS); err != nil {
			return err
		}
	}
	return nil
}

// newPair makes two nodes with a wire between them and a pod each, without anything that would
// carry a packet from one pod to the other.
func (w *World) newPair() (a, b *Node, err error) {
	if a, err = w.newNode(1); err != nil {
		return nil, nil, err
	}
	if b, err = w.newNode(2); err != nil {
		return nil, nil, err
	}
	if err := w.newWire(a, b); err != nil {
		return nil, nil, err
	}
	if err := w.newPod(a, 1, 1); err != nil {
		return nil, nil, err
	}
	if err := w.newPod(b, 2, 2); err != nil {
		return nil, nil, err
	}
	return a, b, nil
}

// newSingle makes one node with two pods. The node's kernel forwards between them.
func (w *World) newSingle() (*Node, error) {
	n, err := w.newNode(1)
	if err != nil {
		return nil, err
	}
	if err := w.newPod(n, 1, 1); err != nil {
		return nil, err
	}
	return n, w.newPod(n, 1, 2)
}

// between is the path from one pod to another.
func between(from, to Pod) Path {
	return Path{Client: from.NS, Server: to.NS, Target: netip.AddrPortFrom(to.Addr, port)}
}
