// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"

	"github.com/weft-net/weft/bpf"
)

// end is one end of a connection: who it is and how its packets reach it.
type end struct {
	identity uint32
	slot     uint16 // an endpoint of this node
	host     bool   // this node itself; what is nothing else goes through its stack, too
	node     uint16 // behind that node
	tunnel   bool   // and its packets go through a tunnel
	leaves   bool   // and they leave the node without its stack
}

// judgement is what deciding comes to: go on with the entry, or a verdict for this packet.
type judgement struct {
	reason bpf.DropReason
	pass   bool
}

func (j judgement) final() bool { return j.pass || j.reason != bpf.DropNone }

func refused(reason bpf.DropReason) judgement { return judgement{reason: reason} }

// whoIs finds the end that has an address. What nobody knows belongs to the world.
func (n *Node) whoIs(address [16]byte) (end, bpf.DropReason) {
	row, ok := n.whose(bpf.Addr(address))
	switch {
	case !ok:
		return end{identity: identityWorld}, bpf.DropNone
	case row.Endpoint != 0:
		return n.endpoint(row.Endpoint, row.Identity)
	case row.Flags&bpf.IPCacheHost != 0:
		return end{identity: row.Identity, host: true}, bpf.DropNone
	case row.Node == 0 && row.Flags&bpf.IPCacheNode == 0 && !clusterIdentity(row.Identity):
		return end{identity: row.Identity}, bpf.DropNone
	}
	e := end{identity: row.Identity, node: uint16(row.Node), leaves: true}
	if row.Node >= n.Config.MaxNodes {
		return e, bpf.DropNode
	}
	if peer := n.Nodes[e.node]; e.node != 0 && peer.Flags&bpf.NodeTunnel != 0 {
		self, _ := n.underlay(e.node, true)
		other, _ := n.underlay(e.node, false)
		if self == ([16]byte{}) || other == ([16]byte{}) {
			return e, bpf.DropNode
		}
		e.tunnel = true
	}
	return e, bpf.DropNone
}

func (n *Node) endpoint(slot uint16, identity uint32) (end, bpf.DropReason) {
	row := n.Endpoints[slot]
	if row.Identity == 0 {
		return end{identity: identity}, bpf.DropEndpoint
	}
	return end{identity: row.Identity, slot: slot}, bpf.DropNone
}

// underlay is an address of the tunnel to a node: the far end's, or this node's.
func (n *Node) underlay(node uint16, near bool) (address [16]byte, ipv6 bool) {
	row := n.Nodes[node]
	ipv6 = row.Flags&bpf.NodeIPv6 != 0
	if near {
		row = n.Nodes[0]
	}
	if ipv6 {
		return row.Ipv6, true
	}
	return row.Ipv4, false
}

// backendTries is how many backends a new connection tries when others of the client are in the way.
const backendTries = 4

// decide makes the entries of a packet's connection, or decides those that are there again: for the
// connection, with the backend it has. The entry is then found under the packet's key.
func (n *Node) decide(p *packet, old *bpf.Flow) judgement {
	for tried := uint32(0); ; tried++ {
		if j, again := n.try(p, old, tried); !again {
			return j
		}
	}
}

// try is decide with the backend that comes some places after the one that the hash gives; again says
// that its answers are another connection's and that the next may be tried.
func (n *Node) try(p *packet, old *bpf.Flow, tried uint32) (_ judgement, again bool) {
	var flow bpf.Flow
	backends := uint32(0)
	if old != nil {
		flow = *old
	} else if j := n.begin(p, &flow, tried, &backends); j.final() {
		return j, false
	}
	receiver, j := n.receiver(p, &flow)
	if j.final() {
		return j, false
	}
	sender, reason := n.sender(p)
	if reason != bpf.DropNone {
		return refused(reason), false
	}

	flow.Generation, flow.Identity = p.generation, sender.identity
	// The host's answers come from its stack: nobody outside may use their entry.
	if p.origin.stack() || p.origin == fromEndpoint && receiver.host {
		flow.State |= bpf.FlowHost
	}
	n.towards(&flow, receiver)
	twinKey := n.twinKey(p.key, &flow)
	there, _ := n.find(twinKey)
	var twin bpf.Flow
	if there != nil && old != nil {
		twin = *there
	}
	reflect(&twin, p.key, &flow)
	twin.Generation, twin.Identity = p.generation, receiver.identity
	n.towards(&twin, sender)

	n.put(p.key, flow)
	opened := flow.State&bpf.FlowOpened != 0
	switch {
	case there == nil || !n.lives(there, twinKey, p.key):
		n.put(twinKey, twin)
	case old != nil || flow.State&bpf.FlowDestination == 0:
	case (opened || p.key.Protocol == ProtoUDP) && tried+1 < min(backends, backendTries):
		return judgement{}, true
	case opened:
		delete(n.Flows, p.key)
		delete(n.Young, p.key)
		return refused(bpf.DropTaken), false
	}
	if old == nil {
		n.reportNew(p, &flow, &twin)
	}
	return judgement{}, false
}

// begin is what only the first packet of a connection decides; backends is how many its service has.
func (n *Node) begin(p *packet, flow *bpf.Flow, tried uint32, backends *uint32) judgement {
	flow.Seen = n.Now
	if isMulticast(p.key) {
		if p.origin == fromNetwork {
			return judgement{pass: true}
		}
		return refused(bpf.DropMulticast)
	}
	if p.tcpFlags&(TCPSyn|TCPAck) == TCPSyn {
		flow.State |= bpf.FlowOpened
	}
	switch {
	case p.tcpFlags&TCPRst != 0:
		flow.State |= bpf.FlowReset | bpf.FlowClosed
	case p.tcpFlags&TCPFin != 0:
		flow.State |= bpf.FlowFin
	}
	if p.origin != fromEndpoint && p.origin != fromHost {
		return judgement{}
	}
	return refused(n.backend(p.key, flow, tried, backends))
}

// backend writes the translation into a new entry if the destination is a service's.
func (n *Node) backend(key bpf.FlowKey, flow *bpf.Flow, tried uint32, backends *uint32) bpf.DropReason {
	frontend, ok := n.Frontends[bpf.FrontendKey{
		Address: key.Destination, Port: key.DestinationPort, Protocol: key.Protocol,
	}]
	if !ok || !hasPorts(key.Protocol) {
		return bpf.DropNone
	}
	if frontend.Count == 0 {
		return bpf.DropNoBackend
	}
	*backends = frontend.Count
	slot := (n.Choose(key, frontend.Count) + tried) % frontend.Count
	chosen, ok := n.Backends[bpf.BackendKey{Service: frontend.Service, Slot: slot}]
	if !ok {
		return bpf.DropNoBackend
	}
	if key.Protocol == ProtoSCTP && chosen.Port != key.DestinationPort {
		return bpf.DropBackendPort
	}
	flow.Service, flow.Address, flow.Port = uint16(frontend.Service), chosen.Address, chosen.Port
	flow.State |= bpf.FlowDestination
	if chosen.Address == key.Source {
		flow.State |= bpf.FlowLoopback
	}
	return bpf.DropNone
}

// receiver is the end a packet goes to, and whether its program may send there.
func (n *Node) receiver(p *packet, flow *bpf.Flow) (end, judgement) {
	destination := n.sent(p.key, flow).Destination
	e, reason := n.whoIs(destination)
	if reason != bpf.DropNone {
		if p.origin == fromNetwork { // not ours to judge: it may be for a node behind this one
			return e, judgement{pass: true}
		}
		return e, refused(reason)
	}
	// What came through the host's stack goes back through it, which may translate once more.
	const answer = bpf.FlowHost | bpf.FlowReply
	if p.origin == fromEndpoint && flow.State&answer == answer {
		e = end{identity: e.identity, host: true}
	}
	service := n.isService(p.key.Destination)
	nobody := e.slot == 0 && !e.leaves && !e.host
	switch p.origin {
	case fromEndpoint:
		if nobody && service {
			return e, refused(bpf.DropNoService)
		}
	case fromNetwork:
		return e, judgement{pass: e.slot == 0}
	case fromTunnel:
		if e.slot == 0 && !e.host {
			return e, refused(bpf.DropEndpoint)
		}
	case fromStack:
		if e.slot == 0 || e.slot != n.slot(p.ifindex) {
			return e, refused(bpf.DropEndpoint)
		}
	case fromHost:
		if e.slot == 0 && !e.leaves {
			if service {
				return e, refused(bpf.DropNoService)
			}
			return e, refused(bpf.DropNoRoute)
		}
	}
	return e, judgement{}
}

// sender is the end a packet came from, which must be allowed to use its source address.
func (n *Node) sender(p *packet) (end, bpf.DropReason) {
	if p.origin == fromEndpoint {
		row := n.Endpoints[p.key.From]
		own := row.Ipv6
		if p.is4() {
			own = row.Ipv4
		}
		switch {
		case row.Identity == 0:
			return end{}, bpf.DropEndpoint
		case own == [16]byte{} || own != p.key.Source:
			return end{}, bpf.DropSource
		}
		return n.endpoint(p.key.From, row.Identity)
	}
	e, reason := n.whoIs(p.key.Source)
	if p.origin.stack() {
		return end{identity: e.identity, host: true}, bpf.DropNone
	}
	// From outside nobody speaks for this node or its endpoints.
	if e.host || e.slot != 0 {
		return e, bpf.DropSource
	}
	if p.origin == fromTunnel {
		e.identity = p.identity
	}
	return e, reason
}

func (n *Node) isService(address [16]byte) bool {
	_, ok := n.Frontends[bpf.FrontendKey{Address: address}]
	return ok
}

func hasPorts(protocol uint8) bool {
	return protocol == ProtoTCP || protocol == ProtoUDP || protocol == ProtoSCTP
}

func isMulticast(key bpf.FlowKey) bool {
	a := netip.AddrFrom16(key.Destination).Unmap()
	return a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || (a.Is4() && a.IsUnspecified())
}

// clusterIdentity tells the identity of an endpoint from those of the world: reserved numbers, and
// prefixes, which have a bit above the 24 of a tunnel.
func clusterIdentity(identity uint32) bool { return identity >= 256 && identity < 1<<24 }
