// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/bpf/model"
)

// step is one thing that happens: a packet, or a change of rows, settings or time. It is complete in
// itself, so that a failing sequence can be made shorter by leaving steps out.
type step struct {
	text   string
	packet *model.Input        // nil: a change
	change func(n *model.Node) // of rows and settings, before they are written to the maps
	ticks  uint32              // that pass
	agent  func(g *game) error // what the agent does to entries
}

// do makes the step in the model and in the kernel; the answer says what differs.
func (g *game) do(s step) (string, error) {
	switch {
	case s.packet != nil:
		return g.play(*s.packet)
	case s.change != nil:
		s.change(g.n)
		return "", g.k.sync(g.n)
	case s.agent != nil:
		return "", s.agent(g)
	}
	g.k.tick(g.n, g.n.Now+s.ticks)
	return "", nil
}

// Rows of the world.

func remoteIdentity(node int) uint32   { return 0x20000 + uint32(node) }
func endpointIdentity(slot int) uint32 { return 0x10000 + uint32(slot) }

func addEndpoint(n *model.Node, slot int, identity uint32) {
	n.Endpoints[uint16(slot)] = bpf.Endpoint{
		Identity: identity, Mac: endpointMAC(slot), Mtu: 1500,
		Ipv4: bpf.Address(endpointAddr(slot, 4)), Ipv6: bpf.Address(endpointAddr(slot, 6)),
	}
	for _, family := range []uint8{4, 6} {
		n.IPCache[endpointAddr(slot, family)] = bpf.IPCacheEntry{Identity: identity, Endpoint: uint16(slot)}
	}
}

func setNode(n *model.Node, node int, flags uint32, mtu uint16) {
	n.Nodes[uint16(node)] = bpf.Node{
		Ipv4: bpf.Address(nodeAddr(node, 4)), Ipv6: bpf.Address(nodeAddr(node, 6)), Flags: flags, Mtu: mtu,
	}
}

func setRemote(n *model.Node, node, pod int, identity uint32) {
	for _, family := range []uint8{4, 6} {
		n.IPCache[podAddr(node, pod, family)] = bpf.IPCacheEntry{Identity: identity, Node: uint32(node)}
	}
}

// service is a frontend with its backends, in both families.
type service struct {
	id       int
	vip      int // last byte of 10.7.0.x and fd07::x
	proto    uint8
	port     uint16
	backends []backend
}

type backend struct {
	node, pod int // of podAddr
	port      uint16
}

func (s service) set(n *model.Node) {
	for i, family := range []uint8{4, 6} {
		id := uint32(s.id*2 + i)
		vip := bpf.Address(podAddr(7, s.vip, family))
		n.Frontends[bpf.FrontendKey{Address: vip}] = bpf.Frontend{}
		n.Frontends[bpf.FrontendKey{Address: vip, Port: bpf.Port(s.port), Protocol: s.proto}] = bpf.Frontend{
			Service: id, Count: uint32(len(s.backends)),
		}
		for k := range n.Backends {
			if k.Service == id {
				delete(n.Backends, k)
			}
		}
		for slot, b := range s.backends {
			n.Backends[bpf.BackendKey{Service: id, Slot: uint32(slot)}] = bpf.Backend{
				Address: bpf.Address(podAddr(b.node, b.pod, family)), Port: bpf.Port(b.port),
			}
		}
	}
}

func services() []service {
	return []service{
		{1, 1, tcp, 80, []backend{{1, 1, 8080}, {1, 2, 8080}, {2, 1, 8080}, {3, 1, 80}, {4, 1, 8081}}},
		{2, 1, udp, 53, []backend{{1, 3, 53}, {3, 2, 5353}}},
		{3, 2, tcp, 80, nil},
		{4, 3, tcp, 80, []backend{{1, 1, 8080}}},
		{5, 3, udp, 80, []backend{{1, 1, 8080}}},
		{6, 1, sctp, 132, []backend{{1, 2, 132}, {2, 2, 133}}},
		{7, 4, tcp, 443, []backend{{3, 1, 443}}},
		{8, 4, udp, 443, []backend{{4, 1, 443}}},
		{9, 5, tcp, 80, []backend{{9, 1, 80}, {9, 3, 80}}},
	}
}

// furnish writes the rows that a test begins with.
func furnish(n *model.Node) {
	n.Generation = 1
	for s := 1; s <= 4; s++ {
		addEndpoint(n, s, endpointIdentity(s))
	}
	setNode(n, 1, 0, 0)
	n.Nodes[0] = n.Nodes[1]
	delete(n.Nodes, 1)
	for node, row := range map[int]struct {
		flags uint32
		mtu   uint16
	}{2: {0, 1400}, 3: {bpf.NodeTunnel, 0}, 4: {bpf.NodeTunnel | bpf.NodeIPv6, 1450}, 5: {0, 1500}, 6: {0, 0}} {
		setNode(n, node, row.flags, row.mtu)
		for pod := 1; pod <= 2; pod++ {
			setRemote(n, node, pod, remoteIdentity(node))
		}
	}
	for _, family := range []uint8{4, 6} {
		n.IPCache[nodeAddr(1, family)] = bpf.IPCacheEntry{Identity: 1, Flags: bpf.IPCacheHost}
		n.IPCache[nodeAddr(2, family)] = bpf.IPCacheEntry{Identity: 6, Flags: bpf.IPCacheNode, Node: 2}
		n.IPCache[nodeAddr(3, family)] = bpf.IPCacheEntry{Identity: 6, Flags: bpf.IPCacheNode, Node: 3}
		n.IPCache[nodeAddr(4, family)] = bpf.IPCacheEntry{Identity: 6, Flags: bpf.IPCacheNode, Node: 4}
		bits := 24
		if family == 6 {
			bits = 64
		}
		world, _ := podAddr(8, 0, family).Prefix(bits)
		n.Prefixes[world] = bpf.IPCacheEntry{Identity: 0x1000001}
		all, _ := podAddr(8, 0, family).Prefix(0)
		n.Prefixes[all] = bpf.IPCacheEntry{Identity: 2}
	}
	for _, s := range services() {
		s.set(n)
	}
}

func changed(text string, f func(n *model.Node)) step {
	return step{text: text, change: f}
}

func raise() step {
	return changed("raise", func(n *model.Node) { n.Generation++ })
}

func pass(ticks uint32) step {
	return step{text: fmt.Sprintf("%d ticks", ticks), ticks: ticks}
}

func (f frame) text(program model.Program) string {
	return fmt.Sprintf("%s: %d %v.%d > %v.%d flags %#x kind %d/%d ttl %d length %d offset %d more %v options %d",
		programName(program), f.proto, f.src, f.sport, f.dst, f.dport, f.flags, f.kind, f.code, f.ttl, len(f.payload), f.offset, f.more, f.options)
}
