// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/weft-net/weft/bpf"
)

// Program is where a packet meets the datapath.
type Program uint8

// The programs, as their C files name them.
const (
	FromEndpoint Program = iota // an endpoint's device received it from the endpoint
	ToEndpoint                  // the host's stack sends it to an endpoint's device
	FromNetdev                  // a native device received it
	FromOverlay                 // the VXLAN device received it
	FromHost                    // the host's stack sends it into the cluster network
)

// origin is who sent a packet, once the tunnel is taken off.
type origin uint8

const (
	fromEndpoint origin = iota
	fromStack           // on an endpoint's device
	fromNetwork
	fromTunnel
	fromHost // on weft_host
)

// stack says that a packet comes out of the host's own stack.
func (o origin) stack() bool { return o == fromStack || o == fromHost }

// outside says that a packet comes from another node.
func (o origin) outside() bool { return o == fromNetwork || o == fromTunnel }

// GSO says how a large packet will be cut; zero: not at all.
type GSO struct {
	Size, Segments uint32
}

// Input is one packet as a program gets it.
type Input struct {
	Program Program
	Ifindex uint32 // of the device
	Data    []byte // Ethernet header first
	GSO     GSO
	VNI     uint32 // FromOverlay: what the tunnel said
}

// Verdict is what becomes of a packet.
type Verdict uint8

// The verdicts.
const (
	Drop     Verdict = iota
	Pass             // to the host's stack, or on to where it was going
	Redirect         // out by a device, in the way that Output says
)

// Way is how a redirected packet leaves.
type Way uint8

// The ways.
const (
	Peer      Way = iota + 1 // received by the other end of the device
	Device                   // transmitted by the device as it is
	Neighbour                // transmitted by the device to a next hop that the kernel resolves
	Back                     // received by the device itself
)

// Output is what a program does with a packet.
type Output struct {
	Verdict Verdict
	Reason  bpf.DropReason // of a Drop
	Way     Way
	Ifindex uint32
	NextHop netip.Addr // of Neighbour
	Tunnel  uint8      // family of the tunnel it was put into; 0: none
	Data    []byte     // the packet afterwards; not defined for a Drop
}

// Run is what happens to one packet. The node's state changes with it.
func (n *Node) Run(in Input) Output {
	n.Events = n.Events[:0]
	p := &packet{
		data: bytes.Clone(in.Data), l3: etherLen, gso: in.GSO, ifindex: in.Ifindex, generation: n.Generation,
	}
	etherType := binary.BigEndian.Uint16(p.data[12:])
	switch in.Program {
	case FromEndpoint:
		p.origin, p.key.From = fromEndpoint, n.slot(in.Ifindex)
	case ToEndpoint:
		p.origin = fromStack
	case FromHost:
		p.origin = fromHost
	case FromNetdev:
		p.origin = fromNetwork
		if inner, vni, l3, ok := n.open(p.data, etherType); ok {
			p.origin, p.identity, p.l3, etherType = fromTunnel, tunnelIdentity(vni), l3, inner
		}
	case FromOverlay:
		p.origin = fromTunnel
	}
	if p.origin == fromEndpoint && etherType == etherARP {
		return n.arp(p)
	}
	reason := n.parseIP(p, etherType)
	if in.Program == FromOverlay && reason == bpf.DropNone {
		p.identity = tunnelIdentity(in.VNI)
	}
	if reason != bpf.DropNone {
		if p.origin == fromNetwork || p.origin.stack() && reason == bpf.DropProtocol {
			return Output{Verdict: Pass, Data: in.Data} // not for an endpoint; a question for a link address
		}
		return n.drop(p, reason)
	}
	discovery := !p.is4() && p.key.Protocol == ProtoICMPv6 && p.icmpType >= 130 && p.icmpType <= 143
	if p.origin == fromEndpoint && discovery {
		return n.neighbour(p)
	}
	if p.origin.stack() && discovery {
		return Output{Verdict: Pass, Data: in.Data} // the same in IPv6
	}
	if p.icmpErr {
		return n.related(p)
	}
	return n.handle(p)
}

// handle finds the packet's entry, or decides, and sends.
func (n *Node) handle(p *packet) Output {
	flow, _ := n.find(p.key)
	again := n.follow(p, flow)
	if flow == nil || !again || !n.fresh(p, flow) {
		old := flow
		if !again {
			old = nil
		}
		switch j := n.decide(p, old); {
		case j.pass:
			return Output{Verdict: Pass, Data: p.data}
		case j.final():
			return n.drop(p, j.reason)
		}
		flow, _ = n.find(p.key)
	}
	return n.send(p, flow)
}

// fresh says that an entry may be used as it is. What comes from outside ends at this node, and what
// came through the host's stack once must come through it again.
func (n *Node) fresh(p *packet, flow *bpf.Flow) bool {
	switch {
	case p.origin.outside() && flow.State&bpf.FlowLeaves != 0,
		p.origin == fromNetwork && flow.State&bpf.FlowHost != 0,
		p.origin == fromTunnel && flow.Identity != p.identity:
		return false
	}
	return flow.Generation == p.generation
}

// open looks into a packet of the underlay for a tunnelled one: its type, its VNI and where it begins.
func (n *Node) open(frame []byte, etherType uint16) (inner uint16, vni uint32, l3 int, ok bool) {
	var udp []byte
	switch {
	case etherType == etherIPv4 && n.Config.TunnelOverIPv4:
		h := bounded(frame, etherLen, tunnelIPv4)
		self := n.Nodes[0].Ipv4
		if h == nil || h[0] != 0x45 || h[9] != ProtoUDP || binary.BigEndian.Uint16(h[6:])&0x3fff != 0 || mapped(h[16:20]) != self {
			return 0, 0, 0, false
		}
		udp, l3 = h[20:], etherLen+tunnelIPv4
	case etherType == etherIPv6 && n.Config.TunnelOverIPv6:
		h := bounded(frame, etherLen, tunnelIPv6)
		if h == nil || h[6] != ProtoUDP || [16]byte(h[24:40]) != n.Nodes[0].Ipv6 {
			return 0, 0, 0, false
		}
		udp, l3 = h[40:], etherLen+tunnelIPv6
	default:
		return 0, 0, 0, false
	}
	if binary.BigEndian.Uint16(udp[2:]) != n.Config.TunnelPort || binary.BigEndian.Uint32(udp[8:]) != 0x08000000 {
		return 0, 0, 0, false
	}
	inner = binary.BigEndian.Uint16(udp[8+8+12:])
	return inner, binary.BigEndian.Uint32(udp[12:]) >> 8, l3, inner != 0
}

// tunnelIdentity is what a VNI says: who calls itself host is another node's host, and nobody is
// less than the world.
func tunnelIdentity(vni uint32) uint32 {
	switch vni {
	case 0:
		return identityWorld
	case identityHost:
		return identityRemoteNode
	}
	return vni
}
