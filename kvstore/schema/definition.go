// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"maps"
	"net/netip"
	"slices"
)

// Definition is a service as a person defined it; namespace and name are in the key. One of weft's
// own rows.
type Definition struct {
	// Ports has at least one member. Names are unique; a single port may have none.
	Ports []ServicePort
	// Selector picks the endpoints of the same namespace that have all these labels: "<key>" (any
	// source) or "<source>:<key>" to value. Empty selects nothing.
	Selector map[string]string
	// Backends are explicit ones, instead of a Selector.
	Backends []Backend
	// Annotations decide whether the service is global, shared, and its affinity.
	Annotations map[string]string
	// Labels are shown to the mesh, for people.
	Labels map[string]string
	// VIPs are the virtual addresses, at most one per family, each held by a VIP row. None: the
	// service is headless.
	VIPs []netip.Addr
	// Extra carries members that this version does not know.
	Extra Extra
}

// ServicePort is one port of a service.
type ServicePort struct {
	Name     string
	Protocol Protocol
	// Port is the frontend's.
	Port uint16
	// TargetPort is the backend's; 0 with an empty TargetName means the same as Port.
	TargetPort uint16
	// TargetName is the backend's named port, instead of TargetPort.
	TargetName string
}

// Backend is a backend given by address.
type Backend struct {
	Addr netip.Addr
	// Ports by name of the service's port; a name that is absent means that port's target.
	Ports    map[string]uint16
	Hostname string
	State    EndpointState
}

// Equal tells whether two rows say the same.
func (d Definition) Equal(o Definition) bool {
	return slices.Equal(d.Ports, o.Ports) && maps.Equal(d.Selector, o.Selector) &&
		slices.EqualFunc(d.Backends, o.Backends, func(a, b Backend) bool {
			return a.Addr == b.Addr && a.Hostname == b.Hostname && a.State == b.State && maps.Equal(a.Ports, b.Ports)
		}) &&
		maps.Equal(d.Annotations, o.Annotations) && maps.Equal(d.Labels, o.Labels) &&
		slices.Equal(d.VIPs, o.VIPs) && d.Extra == o.Extra
}
