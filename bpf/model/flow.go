// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model

import "github.com/weft-net/weft/bpf"

const closing = bpf.FlowFin | bpf.FlowTwinFin | bpf.FlowReset

// sent is the key of a flow's packets once they are translated.
func (n *Node) sent(key bpf.FlowKey, flow *bpf.Flow) bpf.FlowKey {
	loop := flow.State&bpf.FlowLoopback != 0
	switch {
	case flow.State&bpf.FlowDestination != 0:
		key.Destination, key.DestinationPort = flow.Address, flow.Port
		if loop && key.Family == 4 {
			key.Source = bpf.Address(n.Config.LoopbackIPv4)
		} else if loop {
			key.Source = bpf.Address(n.Config.LoopbackIPv6)
		}
	case flow.State&bpf.FlowSource != 0:
		if loop {
			key.Destination = key.Source
		}
		key.Source, key.SourcePort = flow.Address, flow.Port
	}
	return key
}

// twinKey is the key of the other direction: what answers the translated packet, from where it goes.
func (n *Node) twinKey(key bpf.FlowKey, flow *bpf.Flow) bpf.FlowKey {
	twin := answer(n.sent(key, flow))
	twin.From = n.slot(flow.Ifindex)
	return twin
}

func answer(key bpf.FlowKey) bpf.FlowKey {
	key.Source, key.Destination = key.Destination, key.Source
	key.SourcePort, key.DestinationPort = key.DestinationPort, key.SourcePort
	return key
}

// reflect writes into a twin what follows from the other direction's key and value.
func reflect(twin *bpf.Flow, key bpf.FlowKey, flow *bpf.Flow) {
	const common = bpf.FlowReplied | bpf.FlowReset | bpf.FlowLoopback | bpf.FlowClosed |
		bpf.FlowRefused | bpf.FlowOpened | bpf.FlowHost
	twin.State = flow.State&common | ^flow.State&bpf.FlowReply
	pairs := []struct{ mine, its uint16 }{
		{bpf.FlowFin, bpf.FlowTwinFin},
		{bpf.FlowTwinFin, bpf.FlowFin},
		{bpf.FlowDestination, bpf.FlowSource},
		{bpf.FlowSource, bpf.FlowDestination},
	}
	for _, p := range pairs {
		if flow.State&p.mine != 0 {
			twin.State |= p.its
		}
	}
	if flow.State&bpf.FlowDestination != 0 {
		twin.Address, twin.Port = key.Destination, key.DestinationPort
	} else if flow.State&bpf.FlowSource != 0 {
		twin.Address, twin.Port = key.Source, key.SourcePort
	}
	twin.Service, twin.Seen = flow.Service, flow.Seen
}

// towards writes into an entry how its packets reach an end. A route is looked up by the packet
// that needs it.
func (n *Node) towards(flow *bpf.Flow, e end) {
	flow.State &^= bpf.FlowLeaves | bpf.FlowTunnel
	flow.Ifindex, flow.Node, flow.Mtu, flow.RouteUntil = 0, e.node, 0, n.Now
	flow.Mac = [6]byte{}
	switch {
	case e.slot != 0:
		flow.Ifindex = n.Config.EndpointIfindexBase + uint32(e.slot)
		flow.Mac = n.Endpoints[e.slot].Mac
	case e.leaves:
		flow.State |= bpf.FlowLeaves
		if e.tunnel {
			flow.State |= bpf.FlowTunnel
		}
	}
}

// lives tells whether the place of a twin belongs to another connection, one that differs only in
// its translation: it has an opener elsewhere or was answered, and is not about to end.
func (n *Node) lives(there *bpf.Flow, at, key bpf.FlowKey) bool {
	if there.State&(bpf.FlowReply|bpf.FlowReplied) == 0 || there.State&closing != 0 {
		return false
	}
	its := n.twinKey(at, there)
	its.From = key.From
	return its != key
}

// follow notes in both entries of a connection what a packet says about its life. False: the
// packet begins a new connection where an old one was closing.
func (n *Node) follow(p *packet, flow *bpf.Flow) bool {
	if flow == nil {
		return true
	}
	if p.tcpFlags&(TCPSyn|TCPAck) == TCPSyn && flow.State&closing != 0 {
		return false
	}
	twinKey := n.twinKey(p.key, flow)
	twin, _ := n.find(twinKey)
	if twin == nil {
		twin = new(bpf.Flow) // nobody will see it
	}
	if flow.State&(bpf.FlowReply|bpf.FlowReplied) == bpf.FlowReply {
		flow.State |= bpf.FlowReplied
		twin.State |= bpf.FlowReplied
		n.promote(twinKey)
		n.promote(p.key)
	}
	switch {
	case p.tcpFlags&TCPRst != 0:
		flow.State |= bpf.FlowReset
		twin.State |= bpf.FlowReset
	case p.tcpFlags&TCPFin != 0:
		flow.State |= bpf.FlowFin
		twin.State |= bpf.FlowTwinFin
	default:
		return true
	}
	const both = bpf.FlowFin | bpf.FlowTwinFin
	if kept, _ := n.find(twinKey); kept != nil && (flow.State&bpf.FlowReset != 0 || flow.State&both == both) {
		n.reportClosed(p, flow, twinKey, twin)
	}
	return true
}

// promote moves an entry to the table that never evicts, if that has room.
func (n *Node) promote(key bpf.FlowKey) {
	if flow := n.Young[key]; flow != nil && n.Flows[key] == nil && len(n.Flows) < int(n.Config.MaxFlows) {
		n.Flows[key] = flow
		delete(n.Young, key)
	}
}
