// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/binary"

	"github.com/weft-net/weft/bpf"
)

// Bytes that the tunnel adds.
const (
	tunnelIPv4 = 20 + 8 + 8 + etherLen
	tunnelIPv6 = 40 + 8 + 8 + etherLen
)

// translate writes the new addresses and ports into a packet. Checksums change by the difference,
// so that what was wrong stays wrong and what was right stays right.
func (n *Node) translate(p *packet, flow *bpf.Flow) {
	if flow.State&(bpf.FlowSource|bpf.FlowDestination) == 0 || p.icmpErr {
		return // an error is translated already
	}
	to := n.sent(p.key, flow)
	h := p.data[p.l3:]
	before := sum(p.key.Source[:]) + sum(p.key.Destination[:])
	after := sum(to.Source[:]) + sum(to.Destination[:])
	if p.is4() {
		addresses4(h, to.Source, to.Destination)
	} else {
		addresses6(h, to.Source, to.Destination)
	}
	if p.part == later {
		return
	}
	l4 := p.data[p.l4:]
	at := -1
	switch {
	case p.key.Protocol == ProtoTCP:
		at = 16
	case p.key.Protocol == ProtoUDP:
		at = 6
	case p.key.Protocol == ProtoICMPv6 && !p.is4():
		at = 2
	}
	if p.key.Protocol == ProtoTCP || p.key.Protocol == ProtoUDP {
		before += sum(l4[:4])
		binary.BigEndian.PutUint16(l4, bpf.Port(to.SourcePort))
		binary.BigEndian.PutUint16(l4[2:], bpf.Port(to.DestinationPort))
		after += sum(l4[:4])
	}
	if at < 0 {
		return
	}
	c := l4[at : at+2]
	if p.key.Protocol == ProtoUDP && sum(c) == 0 {
		return // has no checksum
	}
	adjust(c, before, after)
	if p.key.Protocol == ProtoUDP && sum(c) == 0 {
		c[0], c[1] = 0xff, 0xff
	}
}

// encapsulate puts a packet into VXLAN. What the node may choose is left zero: the outer source
// port and the id of an outer IPv4 header.
func (n *Node) encapsulate(p *packet, flow *bpf.Flow) {
	far, ipv6 := n.underlay(flow.Node, false)
	near, _ := n.underlay(flow.Node, true)
	inner := p.data[p.l3:]
	udp := make([]byte, 8+8+etherLen, 8+8+etherLen+len(inner))
	binary.BigEndian.PutUint16(udp[2:], n.Config.TunnelPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(cap(udp)))
	udp[8] = 0x08
	identity := flow.Identity
	if identity == identityHost {
		identity = identityRemoteNode
	}
	binary.BigEndian.PutUint32(udp[12:], identity<<8)
	copy(udp[16:], n.Config.GatewayMAC)
	copy(udp[22:], n.Config.GatewayMAC)
	udp[27] ^= 0xff
	setEtherType(udp[16:], p.key.Family)
	udp = append(udp, inner...)

	var ip []byte
	if ipv6 {
		ip = make([]byte, 40)
		ip[0], ip[6], ip[7] = 0x60, ProtoUDP, 64
		binary.BigEndian.PutUint16(ip[4:], uint16(len(udp)))
		copy(ip[8:], near[:])
		copy(ip[24:], far[:])
	} else {
		ip = make([]byte, 20)
		ip[0], ip[8], ip[9] = 0x45, 64, ProtoUDP
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(udp)))
		copy(ip[12:], near[12:])
		copy(ip[16:], far[12:])
		setChecksum4(ip)
	}
	frame := append([]byte(nil), p.data[:etherLen]...)
	family := uint8(4)
	if ipv6 {
		family = 6
	}
	setEtherType(frame, family)
	p.data = append(append(frame, ip...), udp...)
}

// setChecksum4 computes the checksum of an IPv4 header.
func setChecksum4(h []byte) {
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], ^fold(sum(h[:int(h[0]&15)*4])))
}

// sum adds up 16-bit words; a last odd byte counts as the upper half of one.
func sum(b []byte) (s uint64) {
	for ; len(b) >= 2; b = b[2:] {
		s += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	return s
}

func fold(s uint64) uint16 {
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}
