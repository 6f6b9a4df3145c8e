// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model

import "github.com/weft-net/weft/bpf"

func (p *packet) direction() uint8 {
	if p.origin == fromEndpoint || p.origin == fromHost {
		return bpf.Egress
	}
	return bpf.Ingress
}

// drop counts and reports.
func (n *Node) drop(p *packet, reason bpf.DropReason) Output {
	index := bpf.CounterIndex(reason, p.direction())
	c := n.Counters[index]
	c.Packets++
	c.Bytes += uint64(len(p.data))
	n.Counters[index] = c
	e := p.event(p.key, bpf.EventRefused)
	e.Reason, e.SourceIdentity = uint8(reason), p.identity
	n.report(e)
	return Output{Verdict: Drop, Reason: reason}
}

func (n *Node) report(e bpf.FlowEvent) {
	if n.Config.ReportEvents {
		n.Events = append(n.Events, e)
	}
}

func (p *packet) event(key bpf.FlowKey, kind uint8) bpf.FlowEvent {
	return bpf.FlowEvent{
		Source: key.Source, Destination: key.Destination,
		SourcePort: key.SourcePort, DestinationPort: key.DestinationPort,
		SourceEndpoint: key.From, Protocol: key.Protocol, Family: key.Family,
		Kind: kind, Direction: p.direction(), TcpFlags: p.tcpFlags,
	}
}

// about says in an event what the opener's and the other entry of a connection know.
func (n *Node) about(e *bpf.FlowEvent, opener, other *bpf.Flow) {
	if opener.State&bpf.FlowDestination != 0 {
		e.Backend, e.BackendPort = opener.Address, opener.Port
	}
	e.Service = opener.Service
	e.SourceIdentity, e.DestinationIdentity = opener.Identity, other.Identity
	e.DestinationEndpoint = n.slot(opener.Ifindex)
	e.Node = opener.Node
	if e.Node == 0 {
		e.Node = other.Node
	}
}

func (n *Node) reportNew(p *packet, opener, other *bpf.Flow) {
	e := p.event(p.key, bpf.EventNew)
	n.about(&e, opener, other)
	n.report(e)
}

// reportClosed reports a connection's end, once.
func (n *Node) reportClosed(p *packet, flow *bpf.Flow, twinKey bpf.FlowKey, twin *bpf.Flow) {
	key, opener, other := p.key, flow, twin
	if flow.State&bpf.FlowReply != 0 {
		key, opener, other = twinKey, twin, flow
	}
	sent := opener.State&bpf.FlowClosed != 0
	opener.State |= bpf.FlowClosed
	other.State |= bpf.FlowClosed
	if sent {
		return
	}
	e := p.event(key, bpf.EventClosed)
	n.about(&e, opener, other)
	e.Packets, e.Bytes = opener.Packets, opener.Bytes
	e.ReplyPackets, e.ReplyBytes = other.Packets, other.Bytes
	n.report(e)
}
