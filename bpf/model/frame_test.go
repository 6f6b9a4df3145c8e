// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"encoding/binary"
	"net/netip"
)

// frame describes a packet; bytes makes it, with correct checksums.
type frame struct {
	src, dst     netip.Addr
	proto        uint8
	sport, dport uint16 // ICMP: sport is the id
	flags        byte   // TCP
	kind, code   byte   // ICMP
	ttl          uint8  // 0: 64
	payload      []byte
	raw          bool // payload stands for the transport header, too
	id           uint32
	offset       uint16 // of a fragment, in units of 8 bytes
	more         bool   // fragments follow
	options      int    // bytes of IPv4 options (a multiple of 4), or IPv6 destination options (of 8)
	noChecksum   bool   // UDP
	sourceMAC    [6]byte
	destMAC      [6]byte
}

const (
	tcp, udp, icmp4, icmp6, sctp = 6, 17, 1, 58, 132
	syn, ack, fin, rst           = 0x02, 0x10, 0x01, 0x04
)

func (f frame) is4() bool { return f.src.Is4() }

func (f frame) bytes() []byte {
	l4 := f.transport()
	if f.raw || f.offset != 0 {
		l4 = f.payload
	}
	b := append([]byte(nil), f.destMAC[:]...)
	b = append(b, f.sourceMAC[:]...)
	ttl := f.ttl
	if ttl == 0 {
		ttl = 64
	}
	fragment := f.offset << 3
	if f.more {
		fragment |= 1
	}
	if f.is4() {
		h := make([]byte, 20+f.options)
		h[0], h[8], h[9] = 0x40|byte(len(h)/4), ttl, f.proto
		binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(l4)))
		binary.BigEndian.PutUint16(h[4:], uint16(f.id))
		v := f.offset
		if f.more {
			v |= 0x2000
		}
		binary.BigEndian.PutUint16(h[6:], v)
		s, d := f.src.As4(), f.dst.As4()
		copy(h[12:], s[:])
		copy(h[16:], d[:])
		for i := range f.options {
			h[20+i] = 1
		}
		binary.BigEndian.PutUint16(h[10:], ^checksum(h))
		b = append(b, 0x08, 0x00)
		return append(append(b, h...), l4...)
	}
	next := f.proto
	var ext []byte
	if f.offset != 0 || f.more {
		ext = make([]byte, 8)
		ext[0] = next
		binary.BigEndian.PutUint16(ext[2:], fragment)
		binary.BigEndian.PutUint32(ext[4:], f.id)
		next = 44
	}
	if f.options != 0 {
		o := make([]byte, f.options)
		o[0], o[1], o[2], o[3] = next, byte(f.options/8-1), 1, byte(f.options-4)
		ext = append(o, ext...)
		next = 60
	}
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, next, ttl
	binary.BigEndian.PutUint16(h[4:], uint16(len(ext)+len(l4)))
	s, d := f.src.As16(), f.dst.As16()
	copy(h[8:], s[:])
	copy(h[24:], d[:])
	b = append(b, 0x86, 0xdd)
	return append(append(append(b, h...), ext...), l4...)
}

func (f frame) transport() []byte {
	var h []byte
	at := -1
	switch f.proto {
	case tcp:
		h, at = make([]byte, 20), 16
		h[12], h[13] = 0x50, f.flags
		h[14] = 0x40
	case udp:
		h, at = make([]byte, 8), 6
		binary.BigEndian.PutUint16(h[4:], uint16(8+len(f.payload)))
	case sctp:
		h = make([]byte, 12)
	case icmp4, icmp6:
		h, at = make([]byte, 8), 2
		h[0], h[1] = f.kind, f.code
		binary.BigEndian.PutUint16(h[4:], f.sport)
	default:
		return f.payload
	}
	if f.proto != icmp4 && f.proto != icmp6 {
		binary.BigEndian.PutUint16(h, f.sport)
		binary.BigEndian.PutUint16(h[2:], f.dport)
	}
	h = append(h, f.payload...)
	if at >= 0 && !(f.proto == udp && f.noChecksum) {
		c := ^checksum(f.pseudo(len(h)), h)
		if c == 0 && f.proto == udp {
			c = 0xffff
		}
		binary.BigEndian.PutUint16(h[at:], c)
	}
	return h
}

// pseudo is the pseudo header; ICMP over IPv4 has none.
func (f frame) pseudo(length int) []byte {
	if f.proto == icmp4 && f.is4() {
		return nil
	}
	s, d := f.src.AsSlice(), f.dst.AsSlice()
	b := append(append([]byte(nil), s...), d...)
	return binary.BigEndian.AppendUint16(append(b, 0, f.proto), uint16(length))
}

// checksum is the sum of 16-bit words over the parts, each of which but the last is of even length.
func checksum(parts ...[]byte) uint16 {
	var s uint32
	for _, b := range parts {
		for i, v := range b {
			if i%2 == 0 {
				s += uint32(v) << 8
			} else {
				s += uint32(v)
			}
		}
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// tunnelled is a frame inside VXLAN, as another node sends it.
func tunnelled(inner []byte, from, to netip.Addr, vni uint32, destMAC [6]byte) []byte {
	h := make([]byte, 8)
	h[0] = 0x08
	binary.BigEndian.PutUint32(h[4:], vni<<8)
	return frame{
		src: from, dst: to, proto: udp, sport: 40000, dport: 8472, noChecksum: true,
		payload: append(h, inner...), destMAC: destMAC, sourceMAC: mac(9, 3),
	}.bytes()
}
