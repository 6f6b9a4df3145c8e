// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"
)

// Backend is one address and port that answers for a service.
type Backend struct {
	Addr netip.AddrPort
	// Cluster is the name of the cluster whose endpoint it is, ours included.
	Cluster string
	State   State
}

// State says what a backend may be given.
type State uint8

const (
	// Active backends take new flows.
	Active State = iota
	// Terminating backends still serve the flows they have; they take new ones only where no
	// active backend is left.
	Terminating
)

// String gives "active" or "terminating".
func (s State) String() string {
	if s == Terminating {
		return "terminating"
	}
	return "active"
}

// compareBackends orders by address and port, which are unique in one service.
func compareBackends(a, b Backend) int { return a.Addr.Compare(b.Addr) }
