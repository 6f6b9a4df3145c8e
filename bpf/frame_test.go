// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// TCP flags.
const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
)

const (
	protoICMP   = 1
	protoICMPv6 = 58
)

// frame is an Ethernet frame in words; encode and decode are the only places that know bytes.
type frame struct {
	To, From [6]byte
	Source   netip.Addr
	Dest     netip.Addr
	TTL      uint8
	Protocol uint8
	Sport    uint16 // echo: id
	Dport    uint16
	Flags    uint8  // TCP
	Type     uint8  // ICMP
	Code     uint8  // ICMP
	MTU      uint16 // ICMP
	NoSum    bool   // UDP: without checksum
	ID       uint16 // IPv4
	Offset   uint16 // of a fragment, in bytes
	More     bool   // fragments follow
	Payload  []byte
	Quote    *frame // ICMP errors: the packet they are about, without Ethernet
	VXLAN    *vxlan // the tunnel it is in
	Damage   string // decode: what is wrong with the bytes
}

// vxlan are the headers in front of a tunnelled frame.
type vxlan struct {
	To, From     [6]byte
	Source, Dest netip.Addr
	Sport, Dport uint16
	VNI          uint32
}

func sum(seed uint32, b []byte) uint32 {
	for i := 0; i+1 < len(b); i += 2 {
		seed += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		seed += uint32(b[len(b)-1]) << 8
	}
	for seed > 0xffff {
		seed = seed&0xffff + seed>>16
	}
	return seed
}

func pseudo(source, dest netip.Addr, protocol uint8, length int) uint32 {
	s := sum(uint32(protocol)+uint32(length), source.AsSlice())
	return sum(s, dest.AsSlice())
}

var big = binary.BigEndian

// encode makes the bytes, checksums included.
func (f frame) encode() []byte {
	packet := f.packet()
	ethernet := func(to, from [6]byte, is4 bool, rest []byte) []byte {
		b := append(to[:], from[:]...)
		if is4 {
			b = big.AppendUint16(b, 0x0800)
		} else {
			b = big.AppendUint16(b, 0x86dd)
		}
		return append(b, rest...)
	}
	inner := ethernet(f.To, f.From, f.Source.Is4(), packet)
	if f.VXLAN == nil {
		return inner
	}
	v := f.VXLAN
	payload := big.AppendUint32(nil, 0x08000000)
	payload = big.AppendUint32(payload, v.VNI<<8)
	outer := frame{
		Source: v.Source, Dest: v.Dest, TTL: 64, Protocol: protoUDP, Sport: v.Sport, Dport: v.Dport, NoSum: true,
		Payload: append(payload, inner...),
	}
	return ethernet(v.To, v.From, v.Source.Is4(), outer.packet())
}

// packet is everything from the IP header on.
func (f frame) packet() []byte {
	body := f.transport()
	if f.Source.Is6() {
		next := f.Protocol
		if f.More || f.Offset > 0 {
			head := []byte{f.Protocol, 0}
			offset := f.Offset
			if f.More {
				offset |= 1
			}
			head = big.AppendUint16(head, offset)
			body = append(big.AppendUint32(head, uint32(f.ID)), body...)
			next = 44
		}
		b := big.AppendUint32(nil, 0x60000000)
		b = big.AppendUint16(b, uint16(len(body)))
		b = append(b, next, f.TTL)
		b = append(append(b, f.Source.AsSlice()...), f.Dest.AsSlice()...)
		return append(b, body...)
	}
	b := []byte{0x45, 0}
	b = big.AppendUint16(b, uint16(20+len(body)))
	b = big.AppendUint16(b, f.ID)
	offset := f.Offset / 8
	if f.More {
		offset |= 0x2000
	}
	b = big.AppendUint16(b, offset)
	b = append(b, f.TTL, f.Protocol, 0, 0)
	b = append(append(b, f.Source.AsSlice()...), f.Dest.AsSlice()...)
	big.PutUint16(b[10:], ^uint16(sum(0, b)))
	return append(b, body...)
}

// transport is the transport header with its payload; a later fragment has only payload.
func (f frame) transport() []byte {
	if f.Offset > 0 {
		return f.Payload
	}
	var b []byte
	checksum := 0
	switch f.Protocol {
	case protoTCP:
		b = big.AppendUint16(big.AppendUint16(nil, f.Sport), f.Dport)
		b = append(b, 0, 0, 0, 1, 0, 0, 0, 2, 5<<4, f.Flags, 16, 0, 0, 0, 0, 0)
		checksum = 16
	case protoUDP:
		b = big.AppendUint16(big.AppendUint16(nil, f.Sport), f.Dport)
		b = append(big.AppendUint16(b, uint16(8+len(f.Payload))), 0, 0)
		checksum = 6
	case protoSCTP:
		b = big.AppendUint16(big.AppendUint16(nil, f.Sport), f.Dport)
		return append(append(b, 1, 2, 3, 4, 5, 6, 7, 8), f.Payload...)
	case protoICMP, protoICMPv6:
		b = []byte{f.Type, f.Code, 0, 0}
		if f.Quote != nil {
			b = append(b, 0, 0)
			b = append(big.AppendUint16(b, f.MTU), f.Quote.packet()...)
		} else {
			b = append(big.AppendUint16(b, f.Sport), 0, 7)
		}
		checksum = 2
	default:
		return f.Payload
	}
	b = append(b, f.Payload...)
	if f.NoSum {
		return b
	}
	seed := pseudo(f.Source, f.Dest, f.Protocol, len(b))
	if f.Protocol == protoICMP {
		seed = 0
	}
	big.PutUint16(b[checksum:], ^uint16(sum(seed, b)))
	return b
}

// decode is the reverse; what contradicts itself is said in Damage.
func decode(b []byte) (f frame) {
	if len(b) < 34 {
		return frame{Damage: "short"}
	}
	copy(f.To[:], b)
	copy(f.From[:], b[6:])
	f.decodePacket(b[14:], big.Uint16(b[12:]) == 0x0800)
	if f.Protocol != protoUDP || f.Dport != 8472 {
		return f
	}
	inner := decode(f.Payload[8:])
	inner.VXLAN = &vxlan{
		To: f.To, From: f.From, Source: f.Source, Dest: f.Dest, Sport: f.Sport, Dport: f.Dport,
		VNI: big.Uint32(f.Payload[4:]) >> 8,
	}
	inner.Damage += f.Damage
	return inner
}

func (f *frame) decodePacket(b []byte, is4 bool) {
	var body []byte
	if is4 {
		if b[0] != 0x45 || int(big.Uint16(b[2:])) != len(b) || sum(0, b[:20]) != 0xffff {
			f.Damage += fmt.Sprintf("IPv4 header % x of %d bytes; ", b[:20], len(b))
		}
		f.ID, f.TTL, f.Protocol = big.Uint16(b[4:]), b[8], b[9]
		f.More, f.Offset = b[6]&0x20 != 0, big.Uint16(b[6:])&0x1fff*8
		f.Source, _ = netip.AddrFromSlice(b[12:16])
		f.Dest, _ = netip.AddrFromSlice(b[16:20])
		body = b[20:]
	} else {
		if b[0]>>4 != 6 || int(big.Uint16(b[4:])) != len(b)-40 {
			f.Damage += fmt.Sprintf("IPv6 header % x of %d bytes; ", b[:8], len(b))
		}
		f.Protocol, f.TTL = b[6], b[7]
		f.Source, _ = netip.AddrFromSlice(b[8:24])
		f.Dest, _ = netip.AddrFromSlice(b[24:40])
		body = b[40:]
		if f.Protocol == 44 {
			f.Protocol = body[0]
			f.Offset, f.More = big.Uint16(body[2:])&0xfff8, body[3]&1 != 0
			f.ID = uint16(big.Uint32(body[4:]))
			body = body[8:]
		}
	}
	f.decodeTransport(body)
}

func (f *frame) decodeTransport(b []byte) {
	if f.Offset > 0 {
		f.Payload = b
		return
	}
	seed := pseudo(f.Source, f.Dest, f.Protocol, len(b))
	head := 8
	switch f.Protocol {
	case protoTCP:
		f.Sport, f.Dport, f.Flags = big.Uint16(b), big.Uint16(b[2:]), b[13]
		head = 20
	case protoUDP:
		f.Sport, f.Dport = big.Uint16(b), big.Uint16(b[2:])
		f.NoSum = big.Uint16(b[6:]) == 0
		if int(big.Uint16(b[4:])) != len(b) && !f.More {
			f.Damage += "UDP length; "
		}
	case protoSCTP:
		f.Sport, f.Dport = big.Uint16(b), big.Uint16(b[2:])
		f.Payload = b[12:]
		return
	case protoICMP, protoICMPv6:
		f.Type, f.Code = b[0], b[1]
		if f.Protocol == protoICMP {
			seed = 0
		}
		if f.Type == 3 || f.Type == 11 || f.Protocol == protoICMPv6 && f.Type < 128 {
			f.MTU = big.Uint16(b[6:])
			f.Quote = &frame{}
			f.Quote.decodeQuote(b[8:])
			head = len(b)
		} else {
			f.Sport = big.Uint16(b[4:])
		}
	default:
		f.Payload = b
		return
	}
	if !f.NoSum && !f.More && sum(seed, b) != 0xffff {
		f.Damage += "transport checksum; "
	}
	f.Payload = b[head:]
	if len(f.Payload) == 0 {
		f.Payload = nil
	}
}

// decodeQuote reads as much as an error quotes: the IP header and eight bytes.
func (f *frame) decodeQuote(b []byte) {
	body := b[20:]
	if b[0]>>4 == 4 {
		if sum(0, b[:20]) != 0xffff {
			f.Damage += "quoted IPv4 header; "
		}
		f.TTL, f.Protocol = b[8], b[9]
		f.Source, _ = netip.AddrFromSlice(b[12:16])
		f.Dest, _ = netip.AddrFromSlice(b[16:20])
	} else {
		f.Protocol, f.TTL = b[6], b[7]
		f.Source, _ = netip.AddrFromSlice(b[8:24])
		f.Dest, _ = netip.AddrFromSlice(b[24:40])
		body = b[40:]
	}
	f.Sport, f.Dport = big.Uint16(body), big.Uint16(body[2:])
}
