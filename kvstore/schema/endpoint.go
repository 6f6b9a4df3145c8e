// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// EndpointState is what services make of an endpoint.
type EndpointState uint8

// The states of an endpoint.
const (
	// EndpointReady takes new connections.
	EndpointReady EndpointState = iota
	// EndpointNotReady takes none, for now.
	EndpointNotReady
	// EndpointTerminating keeps those it has.
	EndpointTerminating
)

// String returns the state's word.
func (s EndpointState) String() string {
	switch s {
	case EndpointReady:
		return "ready"
	case EndpointNotReady:
		return "not-ready"
	case EndpointTerminating:
		return "terminating"
	}
	return fmt.Sprintf("state-%d", uint8(s))
}

// ParseEndpointState is the inverse of String. The empty word means ready.
func ParseEndpointState(word string) (EndpointState, error) {
	switch word {
	case "ready", "":
		return EndpointReady, nil
	case "not-ready":
		return EndpointNotReady, nil
	case "terminating":
		return EndpointTerminating, nil
	}
	return 0, fmt.Errorf("endpoint state %q: want ready, not-ready or terminating", clip(word, 32))
}

// MarshalText writes the state's word.
func (s EndpointState) MarshalText() ([]byte, error) {
	if s > EndpointTerminating {
		return nil, fmt.Errorf("endpoint state %d: want 0 to %d", uint8(s), EndpointTerminating)
	}
	return []byte(s.String()), nil
}

// UnmarshalText reads the state's word.
func (s *EndpointState) UnmarshalText(b []byte) (err error) {
	*s, err = ParseEndpointState(string(b))
	return err
}

// Endpoint is one workload on one node; node and number are in the key. One of weft's own rows.
type Endpoint struct {
	Namespace, Name string
	// Addresses has one or two members: at most one of each family, IPv4 first.
	Addresses []netip.Addr
	// Labels are all of them, also those the identity filter leaves out: "<source>:<key>" to value.
	Labels map[string]string
	// Identity is its number, 0 while it has none.
	Identity uint32
	// NamedPorts are sorted by name.
	NamedPorts []NamedPort
	State      EndpointState
	// ServiceAccount may be empty.
	ServiceAccount string
	// Extra carries members that this version does not know.
	Extra Extra
}

// Equal tells whether two rows say the same.
func (e Endpoint) Equal(o Endpoint) bool {
	return e.Namespace == o.Namespace && e.Name == o.Name && slices.Equal(e.Addresses, o.Addresses) &&
		maps.Equal(e.Labels, o.Labels) && e.Identity == o.Identity &&
		slices.Equal(e.NamedPorts, o.NamedPorts) && e.State == o.State &&
		e.ServiceAccount == o.ServiceAccount && e.Extra == o.Extra
}
