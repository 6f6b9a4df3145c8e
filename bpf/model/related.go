// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"encoding/binary"

	"github.com/weft-net/weft/bpf"
)

// related sends an ICMP error along the connection of the packet it quotes, in the direction in
// which that packet's answers go, and translates it like an answer: outside and inside.
func (n *Node) related(p *packet) Output {
	if p.origin == fromEndpoint {
		row := n.Endpoints[p.key.From]
		if p.key.Source != row.Ipv4 && p.key.Source != row.Ipv6 || row.Identity == 0 {
			return n.drop(p, bpf.DropSource)
		}
	}
	quoted, ok := quotedPacket(p)
	key := answer(quoted.key)
	key.From = p.key.From
	flow, _ := n.find(key)
	ours := ok && flow != nil && key.Destination == p.key.Destination
	if ours && p.origin.outside() {
		ours = flow.State&bpf.FlowLeaves == 0 // what comes from outside ends at this node
	}
	if !ours {
		if p.origin == fromNetwork { // the stack may know more
			return Output{Verdict: Pass, Data: p.data}
		}
		return n.drop(p, bpf.DropUnrelated)
	}
	if flow.State&(bpf.FlowSource|bpf.FlowDestination) != 0 {
		translateError(p, quoted, key, n.sent(key, flow))
	}
	p.key = key
	return n.send(p, flow)
}

// quotedPacket reads what an error quotes: an IP header and eight bytes at least.
func quotedPacket(p *packet) (*packet, bool) {
	q := &packet{data: p.data, l3: p.l4 + 8}
	q.key.Family = p.key.Family
	if p.is4() {
		h := bounded(p.data, q.l3, 20)
		if h == nil || h[0]&15 < 5 || binary.BigEndian.Uint16(h[6:])&0x1fff != 0 {
			return q, false
		}
		q.l4 = q.l3 + int(h[0]&15)*4
		q.key.Source, q.key.Destination, q.key.Protocol = mapped(h[12:16]), mapped(h[16:20]), h[9]
	} else {
		h := bounded(p.data, q.l3, 40)
		if h == nil {
			return q, false
		}
		q.l4 = q.l3 + 40
		q.key.Source, q.key.Destination, q.key.Protocol = [16]byte(h[8:24]), [16]byte(h[24:40]), h[6]
		if q.key.Protocol == 44 {
			f := bounded(p.data, q.l4, 8)
			if f == nil || binary.BigEndian.Uint16(f[2:])&0xfff8 != 0 {
				return q, false
			}
			q.key.Protocol = f[0]
			q.l4 += 8
		}
	}
	h := bounded(p.data, q.l4, 8)
	if h == nil {
		return q, false
	}
	port := func(b []byte) uint16 { return bpf.Port(binary.BigEndian.Uint16(b)) }
	icmp := q.key.Protocol == ProtoICMP && p.is4() || q.key.Protocol == ProtoICMPv6 && !p.is4()
	switch {
	case hasPorts(q.key.Protocol):
		q.key.SourcePort, q.key.DestinationPort = port(h), port(h[2:])
	case icmp && (h[0] == 8 || h[0] == 128):
		q.key.SourcePort = port(h[4:])
	case icmp && (h[0] == 0 || h[0] == 129):
		q.key.DestinationPort = port(h[4:])
	}
	return q, true
}

// translateError rewrites an error about a connection whose answers' key becomes to. Its source is
// translated if it is the connection's; routers keep their own.
func translateError(p, quoted *packet, key, to bpf.FlowKey) {
	before := bytes.Clone(p.data)
	source := p.key.Source
	if source == key.Source {
		source = to.Source
	}
	at := 2 // of the ICMP checksum
	if p.is4() {
		addresses4(p.data[p.l3:], source, to.Destination)
		addresses4(p.data[quoted.l3:], to.Destination, to.Source)
	} else {
		addresses6(p.data[p.l3:], source, to.Destination)
		addresses6(p.data[quoted.l3:], to.Destination, to.Source)
	}
	if key.Protocol == ProtoTCP || key.Protocol == ProtoUDP {
		ports := p.data[quoted.l4:]
		binary.BigEndian.PutUint16(ports, bpf.Port(to.DestinationPort))
		binary.BigEndian.PutUint16(ports[2:], bpf.Port(to.SourcePort))
	}
	was, is := sum(before[p.l4:]), sum(p.data[p.l4:])
	if !p.is4() {
		was, is = was+sum(before[p.l3+8:p.l3+40]), is+sum(p.data[p.l3+8:p.l3+40])
	}
	adjust(p.data[p.l4+at:], was, is)
}

// addresses4 writes the addresses of an IPv4 header, whose checksum changes by the difference.
func addresses4(h []byte, source, destination [16]byte) {
	before := sum(h[12:20])
	copy(h[12:], source[12:])
	copy(h[16:], destination[12:])
	adjust(h[10:], before, sum(h[12:20]))
}

func addresses6(h []byte, source, destination [16]byte) {
	copy(h[8:], source[:])
	copy(h[24:], destination[:])
}

// adjust changes a checksum for what the sum over the bytes was and is.
func adjust(checksum []byte, was, is uint64) {
	old := binary.BigEndian.Uint16(checksum)
	binary.BigEndian.PutUint16(checksum, ^fold(uint64(^old)+is+uint64(^fold(was))))
}
