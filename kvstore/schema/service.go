// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"maps"
	"net/netip"
	"slices"
)

// ClusterService is a service as its cluster shows it to the mesh.
type ClusterService struct {
	Cluster, Namespace, Name string
	ClusterID                uint32
	// Frontends are the addresses clients use in the service's own cluster, and Backends the
	// addresses that answer; each with its ports by name. A single port may have the empty name, and
	// two names with the same protocol and number are legal.
	Frontends, Backends map[netip.Addr]map[string]L4
	// Hostnames are names of backends in a headless service; nil if none.
	Hostnames map[netip.Addr]string
	// Zones say where backends run and whom they should serve; nil if not known.
	Zones map[netip.Addr]Zone
	// Labels and Selector are those of the service, for people.
	Labels, Selector map[string]string
	// IncludeExternal and Shared are true on every row that a cluster publishes.
	IncludeExternal, Shared bool
}

// L4 is a protocol and a port.
type L4 struct {
	Protocol Protocol
	Port     uint16
}

// Zone is where a backend runs, and the zones it should serve.
type Zone struct {
	Zone     string
	ForZones []string
}

// Equal tells whether two rows say the same.
func (s ClusterService) Equal(o ClusterService) bool {
	ports := func(a, b map[string]L4) bool { return maps.Equal(a, b) }
	return s.Cluster == o.Cluster && s.Namespace == o.Namespace && s.Name == o.Name &&
		s.ClusterID == o.ClusterID && s.IncludeExternal == o.IncludeExternal && s.Shared == o.Shared &&
		maps.EqualFunc(s.Frontends, o.Frontends, ports) && maps.EqualFunc(s.Backends, o.Backends, ports) &&
		maps.Equal(s.Hostnames, o.Hostnames) &&
		maps.EqualFunc(s.Zones, o.Zones, func(a, b Zone) bool {
			return a.Zone == b.Zone && slices.Equal(a.ForZones, b.ForZones)
		}) &&
		maps.Equal(s.Labels, o.Labels) && maps.Equal(s.Selector, o.Selector)
}
