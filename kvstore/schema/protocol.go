// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import "fmt"

// Protocol is an IP protocol number. In rows it is a name in upper case.
type Protocol uint8

// The transport protocols weft knows. AnyProtocol stands for a name of a foreign writer that it
// does not know; such ports are carried and not used.
const (
	AnyProtocol Protocol = 0
	TCP         Protocol = 6
	UDP         Protocol = 17
	SCTP        Protocol = 132
)

// ParseProtocol reads a protocol's name as rows write it.
func ParseProtocol(name string) (Protocol, error) {
	switch name {
	case "TCP":
		return TCP, nil
	case "UDP":
		return UDP, nil
	case "SCTP":
		return SCTP, nil
	}
	return AnyProtocol, fmt.Errorf("protocol %q: want TCP, UDP or SCTP", clip(name, 32))
}

// foreignProtocol reads a name written by another implementation.
func foreignProtocol(name string) Protocol {
	p, err := ParseProtocol(name)
	if err != nil {
		return AnyProtocol
	}
	return p
}

// String returns the name as rows write it.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case SCTP:
		return "SCTP"
	}
	return "ANY"
}

// MarshalText writes the name.
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a name that weft knows; the empty one is TCP.
func (p *Protocol) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*p = TCP
		return nil
	}
	*p, err = ParseProtocol(string(b))
	return err
}
