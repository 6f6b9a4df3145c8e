// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/binary"

	"github.com/weft-net/weft/bpf"
)

// Protocol numbers and flags, as far as the datapath treats them differently.
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
	ProtoSCTP   = 132

	TCPFin = 0x01
	TCPSyn = 0x02
	TCPRst = 0x04
	TCPAck = 0x10

	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherIPv6 = 0x86dd

	etherLen = 14
)

// part says which part of a datagram a packet is.
type part uint8

const (
	whole part = iota
	first
	later
)

// packet is what is known of an IP packet after parsing.
type packet struct {
	data []byte // the frame, Ethernet header first
	l3   int    // where the IP header begins
	l4   int    // where the transport header, or the data of a later fragment, begins

	key      bpf.FlowKey // ports in network byte order, as in the map
	tcpFlags byte
	icmpType byte
	icmpErr  bool // quotes another packet
	ttl      byte
	part     part
	id       uint32 // of the datagram, if in fragments

	origin     origin
	identity   uint32 // of the source, if the tunnel named it
	gso        GSO
	ifindex    uint32
	generation uint32 // read before anything was looked up
}

func (p *packet) length() int { return len(p.data) - p.l3 }

// segments is how many packets the kernel will make of this one.
func (p *packet) segments() uint32 { return max(p.gso.Segments, 1) }

func (p *packet) is4() bool { return p.key.Family == 4 }

// bounded returns size bytes at an offset, nil if the frame ends before.
func bounded(data []byte, offset, size int) []byte {
	if offset+size > len(data) {
		return nil
	}
	return data[offset : offset+size]
}

// parseIP reads the IP header at l3 and what follows. Ports of later fragments come from known.
func (n *Node) parseIP(p *packet, etherType uint16) bpf.DropReason {
	switch etherType {
	case etherIPv4:
		return n.parse4(p)
	case etherIPv6:
		return n.parse6(p)
	}
	return bpf.DropProtocol
}

func (n *Node) parse4(p *packet) bpf.DropReason {
	h := bounded(p.data, p.l3, 20)
	if h == nil || h[0]>>4 != 4 || h[0]&15 < 5 {
		return bpf.DropMalformed
	}
	p.key.Family, p.key.Protocol, p.ttl = 4, h[9], h[8]
	p.key.Source, p.key.Destination = mapped(h[12:16]), mapped(h[16:20])
	p.l4 = p.l3 + int(h[0]&15)*4
	fragment := binary.BigEndian.Uint16(h[6:])
	switch {
	case fragment&0x1fff != 0:
		p.part = later
	case fragment&0x2000 != 0:
		p.part = first
	}
	p.id = uint32(binary.BigEndian.Uint16(h[4:]))
	return n.ports(p)
}

func (n *Node) parse6(p *packet) bpf.DropReason {
	h := bounded(p.data, p.l3, 40)
	if h == nil || h[0]>>4 != 6 {
		return bpf.DropMalformed
	}
	p.key.Source, p.key.Destination = [16]byte(h[8:24]), [16]byte(h[24:40])
	p.key.Family, p.key.Protocol, p.ttl = 6, h[6], h[7]
	if isMapped(p.key.Source) || isMapped(p.key.Destination) {
		return bpf.DropMapped
	}
	p.l4 = p.l3 + 40
	const extensions = 5 // more than anybody sends
	for count := 0; p.part != later; count++ {
		e := bounded(p.data, p.l4, 8)
		var length int
		switch p.key.Protocol {
		case 0, 43, 60: // hop-by-hop, routing, destination options
			if e != nil {
				length = 8 + int(e[1])*8
			}
		case 51: // authentication header
			if e != nil {
				length = 8 + int(e[1])*4
			}
		case 44: // fragment
			if e != nil {
				length = 8
				offset := binary.BigEndian.Uint16(e[2:])
				switch {
				case offset&0xfff8 != 0:
					p.part = later
				case offset&1 != 0:
					p.part = first
				}
				p.id = binary.BigEndian.Uint32(e[4:])
			}
		default:
			return n.ports(p)
		}
		if e == nil || count == extensions {
			return bpf.DropMalformed
		}
		p.key.Protocol = e[0]
		p.l4 += length
	}
	return n.ports(p)
}

// ports completes the key. A later fragment has the ports that its first one had.
func (n *Node) ports(p *packet) bpf.DropReason {
	id := fragmentID{p.key.Source, p.key.Destination, p.id, p.key.Protocol, p.key.Family, p.key.From}
	if p.part == later {
		known, ok := n.fragments[id]
		if !ok {
			return bpf.DropFragment
		}
		p.key.SourcePort, p.key.DestinationPort = known[0], known[1]
		return bpf.DropNone
	}
	if reason := p.transport(); reason != bpf.DropNone {
		return reason
	}
	if p.part == first {
		n.fragments[id] = [2]uint16{p.key.SourcePort, p.key.DestinationPort}
	}
	return bpf.DropNone
}

func (p *packet) transport() bpf.DropReason {
	port := func(b []byte) uint16 { return bpf.Port(binary.BigEndian.Uint16(b)) }
	icmp4, icmp6 := p.key.Protocol == ProtoICMP && p.is4(), p.key.Protocol == ProtoICMPv6 && !p.is4()
	size := 0
	switch {
	case p.key.Protocol == ProtoTCP:
		size = 20
	case p.key.Protocol == ProtoUDP, p.key.Protocol == ProtoSCTP, icmp4, icmp6:
		size = 8
	default:
		return bpf.DropNone
	}
	h := bounded(p.data, p.l4, size)
	if h == nil {
		return bpf.DropMalformed
	}
	if !icmp4 && !icmp6 {
		p.key.SourcePort, p.key.DestinationPort = port(h), port(h[2:])
		if p.key.Protocol == ProtoTCP {
			p.tcpFlags = h[13]
		}
		return bpf.DropNone
	}
	p.icmpType = h[0]
	switch {
	case icmp4 && h[0] == 8, icmp6 && h[0] == 128:
		p.key.SourcePort = port(h[4:])
	case icmp4 && h[0] == 0, icmp6 && h[0] == 129:
		p.key.DestinationPort = port(h[4:])
	case icmp4 && (h[0] == 3 || h[0] == 11 || h[0] == 12), icmp6 && h[0] < 128:
		p.icmpErr = true
	}
	return bpf.DropNone
}

func mapped(b []byte) (a [16]byte) {
	a[10], a[11] = 0xff, 0xff
	copy(a[12:], b)
	return a
}

func isMapped(a [16]byte) bool { return mapped(a[12:]) == a }
