// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"bytes"
	"net/netip"
	"strconv"
)

// scanIP reads an ip row that is written exactly as json.Marshal writes it, in plain ASCII, and
// whose address is spelled as its key. That is nearly every row of a mesh, and this takes a tenth of
// the time that encoding/json needs. Anything else is not ok, which says nothing about whether the
// row is valid: decodeIP decides then. A fuzz test holds the two together.
//
// The text of a workload goes straight from the row into its packed form.
func scanIP(k IPKey, b []byte) (v IP, ok bool) {
	var addr [64]byte
	s := scanner{rest: b}
	s.literal(`{"IP":"`)
	s.bytes(k.Prefix.Addr().AppendTo(addr[:0]))
	s.literal(`","Mask":`)
	if k.Prefix.IsSingleIP() {
		s.literal(`null`)
	} else {
		return IP{}, false // few, and base64 is not worth the code
	}
	s.literal(`,"HostIP":"`)
	v.HostIP = s.addr()
	s.literal(`,"ID":`)
	v.ID = s.number(1<<32 - 1)
	s.literal(`,"Key":`)
	v.Key = uint8(s.number(1<<8 - 1))

	var packed [512]byte
	text := packed[:0]
	s.literal(`,"Metadata":"`)
	text = append(text, s.text()...)
	for _, name := range [...]string{`,"K8sNamespace":"`, `,"K8sPodName":"`, `,"K8sServiceAccount":"`} {
		text = append(text, 0)
		if s.optional(name) {
			text = append(text, s.text()...)
		}
	}
	empty := len(text) == 3
	if s.optional(`,"NamedPorts":[`) {
		empty = false
		var lastName []byte
		var lastL4 L4
		for first := true; first || s.optional(`,`); first = false {
			s.literal(`{"Name":"`)
			name := s.text()
			s.literal(`,"Port":`)
			port := s.number(1<<16 - 1)
			s.literal(`,"Protocol":"`)
			proto := s.protocol()
			s.literal(`}`)
			l4 := L4{Protocol: proto, Port: uint16(port)}
			if s.failed || !first && comparePort(lastName, lastL4, name, l4) > 0 {
				return IP{}, false // decodeIP sorts them
			}
			lastName, lastL4 = name, l4
			text = append(append(text, 0), name...)
			text = strconv.AppendUint(append(text, 0), uint64(proto), 10)
			text = strconv.AppendUint(append(text, 0), uint64(port), 10)
		}
		s.literal(`]`)
	}
	s.literal(`}`)
	if s.failed || len(s.rest) != 0 || len(b) > MaxValue {
		return IP{}, false
	}
	if !empty {
		v.Workload.text = string(text)
	}
	return v, true
}

// scanner walks over a value; once something was not as expected it has failed, and stays so.
type scanner struct {
	rest   []byte
	failed bool
}

// optional consumes a literal if it is next.
func (s *scanner) optional(lit string) bool {
	if len(s.rest) < len(lit) || string(s.rest[:len(lit)]) != lit {
		return false
	}
	s.rest = s.rest[len(lit):]
	return true
}

// literal consumes what must be next.
func (s *scanner) literal(lit string) {
	if !s.optional(lit) {
		s.failed = true
	}
}

// bytes is literal for a slice.
func (s *scanner) bytes(want []byte) {
	if !bytes.HasPrefix(s.rest, want) {
		s.failed = true
		return
	}
	s.rest = s.rest[len(want):]
}

// text consumes the rest of a string and its closing quote. A string with an escape, a control
// character or anything but ASCII fails.
func (s *scanner) text() []byte {
	for i, c := range s.rest {
		if c == '"' {
			t := s.rest[:i]
			s.rest = s.rest[i+1:]
			return t
		}
		if c < ' ' || c >= 0x7f || c == '\\' {
			break
		}
	}
	s.failed = true
	return nil
}

// number consumes a decimal number up to max.
func (s *scanner) number(max uint64) uint32 {
	n, i := uint64(0), 0
	for i < len(s.rest) && i < 11 && s.rest[i]-'0' <= 9 {
		n = n*10 + uint64(s.rest[i]-'0')
		i++
	}
	if i == 0 || n > max || (i > 1 && s.rest[0] == '0') {
		s.failed = true
		return 0
	}
	s.rest = s.rest[i:]
	return uint32(n)
}

// addr consumes a string that is an address or empty.
func (s *scanner) addr() netip.Addr {
	t := s.text()
	if len(t) == 0 {
		return netip.Addr{}
	}
	if a, ok := scanIPv4(t); ok {
		return a
	}
	a, err := netip.ParseAddr(string(t))
	if err != nil || a.Zone() != "" {
		s.failed = true
		return netip.Addr{}
	}
	return a.Unmap()
}

// scanIPv4 reads the four numbers without making a string of them.
func scanIPv4(t []byte) (netip.Addr, bool) {
	var quad [4]byte
	s := scanner{rest: t}
	for i := range quad {
		if i > 0 {
			s.literal(".")
		}
		quad[i] = byte(s.number(255))
	}
	return netip.AddrFrom4(quad), !s.failed && len(s.rest) == 0
}

// protocol consumes the name of a protocol that weft knows.
func (s *scanner) protocol() Protocol {
	switch string(s.text()) {
	case "TCP":
		return TCP
	case "UDP":
		return UDP
	case "SCTP":
		return SCTP
	}
	s.failed = true
	return AnyProtocol
}
