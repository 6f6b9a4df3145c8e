// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import "encoding/binary"

// correct tells whether all checksums of a frame are right, those of a tunnelled packet's headers
// and of quoted headers included. It computes them anew, where model and programs take differences.
// What it cannot judge, fragments and unknown protocols, is right.
func correct(b []byte) bool {
	if len(b) < 14 {
		return false
	}
	return correctIP(b[14:], binary.BigEndian.Uint16(b[12:]), true)
}

func correctIP(b []byte, etherType uint16, whole bool) bool {
	var pseudo, l4 []byte
	var proto byte
	switch {
	case etherType == 0x0800 && len(b) >= 20 && b[0]>>4 == 4:
		length, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
		if length < 20 || len(b) < length || checksum(b[:length]) != 0xffff {
			return false
		}
		if !whole || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
			return true
		}
		if total < length || total > len(b) {
			return false
		}
		proto, l4 = b[9], b[length:total]
		pseudo = append(append(pseudo, b[12:20]...), 0, proto)
	case etherType == 0x86dd && len(b) >= 40 && b[0]>>4 == 6:
		proto = b[6]
		total := 40 + int(binary.BigEndian.Uint16(b[4:]))
		if whole && total > len(b) {
			return false
		}
		if !whole || proto == 44 || proto == 60 || proto == 0 || proto == 51 || proto == 43 {
			return true
		}
		l4 = b[40:total]
		pseudo = append(append(pseudo, b[8:40]...), 0, proto)
	default:
		return true
	}
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(l4)))
	switch {
	case proto == tcp && len(l4) >= 20, proto == icmp6 && etherType == 0x86dd && len(l4) >= 8:
		if checksum(pseudo, l4) != 0xffff {
			return false
		}
	case proto == icmp4 && etherType == 0x0800 && len(l4) >= 8:
		if checksum(l4) != 0xffff {
			return false
		}
	case proto == udp && len(l4) >= 8:
		zero := l4[6] == 0 && l4[7] == 0
		if !zero && checksum(pseudo, l4) != 0xffff {
			return false
		}
		if zero && len(l4) > 30 && binary.BigEndian.Uint16(l4[2:]) == 8472 {
			return correct(l4[16:])
		}
	}
	if quotes := proto == icmp4 && len(l4) >= 28 && (l4[0] == 3 || l4[0] == 11 || l4[0] == 12); quotes {
		return correctIP(l4[8:], etherType, false)
	}
	return true
}
