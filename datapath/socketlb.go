// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import "fmt"

// SocketLB is whose sockets are given backends of services when they connect or send. The packets of
// everybody else are translated, one by one.
type SocketLB uint8

// The choices.
const (
	SocketLBOff  SocketLB = iota // nobody's
	SocketLBHost                 // of processes in the node's network namespace
	SocketLBAll                  // and in those of its endpoints
)

func (s SocketLB) String() string {
	switch s {
	case SocketLBOff:
		return "off"
	case SocketLBHost:
		return "host"
	case SocketLBAll:
		return "all"
	}
	return fmt.Sprintf("socket LB %d", uint8(s))
}

// ParseSocketLB reads what String writes.
func ParseSocketLB(text string) (SocketLB, error) {
	for _, s := range []SocketLB{SocketLBOff, SocketLBHost, SocketLBAll} {
		if text == s.String() {
			return s, nil
		}
	}
	return 0, fmt.Errorf("socket LB %q: want off, host or all", text)
}
