// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/kvstore/schema"
)

// Frontend is what clients connect to: an address, a port and a protocol. It is the key of a
// derived row, and comparable.
type Frontend struct {
	Addr     netip.AddrPort
	Protocol schema.Protocol
}

// String gives "10.96.0.9:80/TCP".
func (f Frontend) String() string { return f.Addr.String() + "/" + f.Protocol.String() }

// Compare orders frontends by address, port and protocol.
func (f Frontend) Compare(g Frontend) int {
	if c := f.Addr.Compare(g.Addr); c != 0 {
		return c
	}
	return cmp.Compare(f.Protocol, g.Protocol)
}

// Service is what stands behind one frontend.
type Service struct {
	// Name is the definition that the frontend comes from.
	Name schema.DefinitionKey
	// Port is the name of the definition's port, empty for an unnamed one.
	Port string
	// Global says that backends of other clusters may be among Backends.
	Global bool
	// Affinity says which clusters' backends were preferred.
	Affinity Affinity
	// Backends holds every backend that is alive for this frontend: first the Chosen ones, then
	// those that must keep the flows they have but get no new one (terminating, or of a cluster
	// that the affinity does not prefer now). Both parts are sorted by address. A backend that is
	// not in the slice is gone. The slice is shared and must not be changed.
	Backends []Backend
	// Chosen is how many of Backends, from the front, take new flows. Zero means that the
	// frontend has no backend and refuses.
	Chosen int
}

// Equal tells whether two services are the same row.
func (s Service) Equal(o Service) bool {
	return s.Name == o.Name && s.Port == o.Port && s.Global == o.Global &&
		s.Affinity == o.Affinity && s.Chosen == o.Chosen && slices.Equal(s.Backends, o.Backends)
}

// Change is one frontend that is not what it was.
type Change struct {
	Frontend Frontend
	// Service is the new row; of a deleted frontend the last one.
	Service Service
	Deleted bool
}
