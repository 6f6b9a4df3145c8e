// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/binary"

	"github.com/weft-net/weft/bpf"
)

// tell drops a packet and, if an endpoint sent it, answers with an ICMP error: that it is larger
// than mtu or, with none, that its time is over. Errors are not answered, nor are later fragments.
func (n *Node) tell(p *packet, reason bpf.DropReason, mtu int) Output {
	out := n.drop(p, reason)
	if p.origin != fromEndpoint || p.icmpErr || p.part == later {
		return out
	}
	var ip, icmp []byte
	size := 28 // an IPv4 header and eight bytes
	switch {
	case !p.is4() && mtu != 0:
		size = 80 // what is too big may have extension headers in front of its ports
	case !p.is4():
		size = 48
	}
	quote := bounded(p.data, p.l3, size)
	if quote == nil {
		return out // less than a transport header: nobody waits for an answer
	}
	if p.is4() {
		if p.l4-p.l3 != 20 {
			return out // options are not quoted
		}
		icmp = append([]byte{11, 0, 0, 0, 0, 0, 0, 0}, quote...)
		if mtu != 0 {
			icmp[0], icmp[1] = 3, 4
			binary.BigEndian.PutUint16(icmp[6:], uint16(mtu))
		}
		binary.BigEndian.PutUint16(icmp[2:], ^fold(sum(icmp)))
		gateway := bpf.Address(n.Config.GatewayIPv4)
		ip = make([]byte, 20)
		ip[0], ip[8], ip[9] = 0x45, 64, ProtoICMP
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(icmp)))
		copy(ip[12:], gateway[12:])
		copy(ip[16:], p.key.Source[12:])
		setChecksum4(ip)
	} else {
		icmp = append([]byte{3, 0, 0, 0, 0, 0, 0, 0}, quote...)
		if mtu != 0 {
			icmp[0] = 2
			binary.BigEndian.PutUint32(icmp[4:], uint32(mtu))
		}
		ip = header6(bpf.Address(n.Config.GatewayIPv6), p.key.Source, len(icmp), 64)
		binary.BigEndian.PutUint16(icmp[2:], checksum6(ip, icmp))
	}
	return n.back(p, append(ip, icmp...), out.Reason)
}

// back is an answer to the endpoint that sent a packet.
func (n *Node) back(p *packet, body []byte, reason bpf.DropReason) Output {
	frame := append(append([]byte(nil), p.data[6:12]...), n.Config.GatewayMAC...)
	frame = append(append(frame, p.data[12:14]...), body...)
	return Output{Verdict: Redirect, Reason: reason, Way: Peer, Ifindex: p.ifindex, Data: frame}
}

func header6(source, destination [16]byte, length int, hops byte) []byte {
	ip := make([]byte, 40)
	ip[0], ip[6], ip[7] = 0x60, ProtoICMPv6, hops
	binary.BigEndian.PutUint16(ip[4:], uint16(length))
	copy(ip[8:], source[:])
	copy(ip[24:], destination[:])
	return ip
}

// checksum6 is the checksum of an ICMPv6 message whose own field is zero.
func checksum6(ip, message []byte) uint16 {
	return ^fold(sum(ip[8:40]) + uint64(len(message)) + ProtoICMPv6 + sum(message))
}

// arp answers an endpoint's question for the gateway's link address.
func (n *Node) arp(p *packet) Output {
	a := bounded(p.data, etherLen, 28)
	own := n.Endpoints[p.key.From].Ipv4
	gateway := bpf.Address(n.Config.GatewayIPv4)
	switch {
	case a == nil:
		return n.drop(p, bpf.DropMalformed)
	case n.Endpoints[p.key.From].Identity == 0:
		return n.drop(p, bpf.DropEndpoint)
	case a[7] == 2 && mapped(a[14:18]) != own:
		return n.drop(p, bpf.DropSource)
	case a[7] == 2: // an answer to the host's question
		return Output{Verdict: Pass, Data: p.data}
	case a[6] != 0 || a[7] != 1 || binary.BigEndian.Uint16(a[2:]) != etherIPv4 || mapped(a[24:28]) != gateway:
		return n.drop(p, bpf.DropProtocol)
	}
	asker, address := [6]byte(a[8:14]), [4]byte(a[14:18])
	copy(a[8:], n.Config.GatewayMAC)
	copy(a[14:], gateway[12:])
	copy(a[18:], asker[:])
	copy(a[24:], address[:])
	a[7] = 2
	copy(p.data, asker[:])
	copy(p.data[6:], n.Config.GatewayMAC)
	return Output{Verdict: Redirect, Way: Peer, Ifindex: p.ifindex, Data: p.data}
}

// neighbour does with an endpoint's neighbour discovery what arp does with the other family's.
func (n *Node) neighbour(p *packet) Output {
	gateway := bpf.Address(n.Config.GatewayIPv6)
	const solicit, advert = 135, 136
	switch {
	case p.icmpType == advert:
		if n.Endpoints[p.key.From].Identity == 0 {
			return n.drop(p, bpf.DropEndpoint)
		}
		source, destination := bpf.Addr(p.key.Source), bpf.Addr(p.key.Destination)
		if p.key.Source != n.Endpoints[p.key.From].Ipv6 && !source.IsLinkLocalUnicast() {
			return n.drop(p, bpf.DropSource)
		}
		if row, _ := n.whose(destination); row.Flags&bpf.IPCacheHost == 0 && !destination.IsLinkLocalUnicast() {
			return n.drop(p, bpf.DropMulticast)
		}
		return Output{Verdict: Pass, Data: p.data}
	case p.icmpType != solicit || p.l4 != etherLen+40:
		return n.drop(p, bpf.DropMulticast)
	}
	message := bounded(p.data, p.l4, 24)
	if message == nil {
		return n.drop(p, bpf.DropMalformed)
	}
	if [16]byte(message[8:24]) != gateway || bpf.Addr(p.key.Source).IsUnspecified() || !bpf.Addr(p.key.Source).IsValid() {
		return n.drop(p, bpf.DropMulticast)
	}
	answer := make([]byte, 32)
	answer[0], answer[4] = advert, 0xe0 // router, solicited, override
	copy(answer[8:], gateway[:])
	answer[24], answer[25] = 2, 1
	copy(answer[26:], n.Config.GatewayMAC)
	ip := header6(gateway, p.key.Source, len(answer), 255)
	binary.BigEndian.PutUint16(answer[2:], checksum6(ip, answer))
	return n.back(p, append(ip, answer...), bpf.DropNone)
}
