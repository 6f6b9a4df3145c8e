// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/binary"

	"github.com/weft-net/weft/bpf"
)

// send does with a packet what its entry says.
func (n *Node) send(p *packet, flow *bpf.Flow) Output {
	flow.Packets += p.segments()
	flow.Bytes += uint64(p.length())
	flow.Seen = n.Now
	if flow.State&bpf.FlowLeaves != 0 {
		return n.leave(p, flow)
	}
	p.data = append(p.data[:etherLen:etherLen], p.data[p.l3:]...)
	p.l3, p.l4 = etherLen, p.l4-p.l3+etherLen
	setEtherType(p.data, p.key.Family)
	if p.origin == fromEndpoint && flow.Ifindex != 0 {
		if p.ttl <= 1 {
			return n.tell(p, bpf.DropTTL, 0)
		}
		age(p)
	}
	n.translate(p, flow)
	out := Output{Verdict: Pass, Data: p.data}
	if flow.Ifindex == 0 || p.origin == fromStack {
		return out
	}
	copy(p.data, flow.Mac[:])
	copy(p.data[6:], n.Config.GatewayMAC)
	out.Verdict, out.Ifindex, out.Way = Redirect, flow.Ifindex, Peer
	if p.origin == fromHost { // a transmit path has no other way
		out.Way = Device
	}
	return out
}

// leave sends a packet to another node: by the next hop that the entry, or any other to the same
// destination, learnt within the last second, else by the kernel's route, which then is remembered.
func (n *Node) leave(p *packet, flow *bpf.Flow) Output {
	routed := int32(flow.RouteUntil-n.Now) > 0 && n.devices[flow.Ifindex]
	destination, source := bpf.Addr(n.sent(p.key, flow).Destination), bpf.Addr(n.sent(p.key, flow).Source)
	overhead, family := 0, uint8(0)
	tunnelled := flow.State&bpf.FlowTunnel != 0
	if tunnelled {
		far, ipv6 := n.underlay(flow.Node, false)
		near, _ := n.underlay(flow.Node, true)
		destination, source = bpf.Addr(far), bpf.Addr(near)
		overhead, family = tunnelIPv4, 4
		if ipv6 {
			overhead, family = tunnelIPv6, 6
		}
	}
	var route Route
	if !routed {
		hop, known := n.hops[destination]
		if known = known && int32(hop.until-n.Now) > 0 && n.devices[hop.Ifindex]; known {
			route, routed = hop.Route, true
		} else if route = n.Route(source, destination); !route.Found {
			return n.drop(p, bpf.DropNoRoute)
		} else if route.Neighbour {
			hop.Route, hop.until = route, n.Now+n.Config.TicksPerSecond
			n.hops[destination] = hop
			n.devices[route.Ifindex], n.macs[route.Ifindex] = true, route.Source
		}
		n.remember(flow, route, hop.until, overhead)
	}
	if flow.Mtu != 0 && p.largest() > int(flow.Mtu) {
		return n.tell(p, bpf.DropTooBig, int(flow.Mtu))
	}
	if p.origin == fromEndpoint {
		if p.ttl <= 1 {
			return n.tell(p, bpf.DropTTL, 0)
		}
		age(p)
	}
	n.translate(p, flow)
	if tunnelled {
		n.encapsulate(p, flow)
	}
	if !routed {
		return Output{Verdict: Redirect, Way: Neighbour, Ifindex: route.Ifindex, NextHop: route.NextHop, Tunnel: family, Data: p.data}
	}
	mac := n.macs[flow.Ifindex]
	copy(p.data, flow.Mac[:])
	copy(p.data[6:], mac[:])
	return Output{Verdict: Redirect, Way: Device, Ifindex: flow.Ifindex, Tunnel: family, Data: p.data}
}

// remember keeps a route in an entry: until then, if the next hop's address is known.
func (n *Node) remember(flow *bpf.Flow, route Route, until uint32, overhead int) {
	limit := 0
	if flow.Node != 0 {
		limit = int(n.Nodes[flow.Node].Mtu)
	}
	flow.Ifindex, flow.RouteUntil = route.Ifindex, n.Now
	if route.Neighbour {
		if limit == 0 || limit > route.MTU {
			limit = route.MTU
		}
		flow.Mac, flow.RouteUntil = route.MAC, until
	}
	if limit > overhead {
		flow.Mtu = uint16(limit - overhead)
	}
}

// largest is the size of the largest packet that leaves when this one is segmented.
func (p *packet) largest() int {
	if p.gso.Size == 0 {
		return p.length()
	}
	headers := p.l4 - p.l3 + 8
	if p.key.Protocol == ProtoTCP {
		headers = p.l4 - p.l3 + int(p.data[p.l4+12]>>4)*4
	}
	return min(p.length(), headers+int(p.gso.Size))
}

// age does what a router does: one hop less to live.
func age(p *packet) {
	h := p.data[p.l3:]
	if p.is4() {
		before := sum(h[8:10])
		h[8]--
		adjust(h[10:], before, sum(h[8:10]))
		return
	}
	h[7]--
}

func setEtherType(frame []byte, family uint8) {
	t := uint16(etherIPv6)
	if family == 4 {
		t = etherIPv4
	}
	binary.BigEndian.PutUint16(frame[12:], t)
}
