// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import "net/netip"

// IP says which identity stands behind an address or prefix, and where. It is comparable with ==
// and small: agents hold one for every endpoint of the mesh. The address itself is in the key.
type IP struct {
	// HostIP is the node's address, where tunnels end; the zero Addr means none (a prefix outside).
	HostIP netip.Addr
	// ID is the identity.
	ID uint32
	// Key is the index of the encryption key, 0 for none.
	Key uint8
	// Workload packs the names and ports of the endpoint.
	Workload PackedWorkload
}

// Workload is what an ip row says about the endpoint beyond addresses and identity.
type Workload struct {
	// Metadata is opaque text of the writer, by custom cilium-global:<cluster>:<node>:<endpoint id>.
	Metadata string
	// Namespace, Name and ServiceAccount name the endpoint for people and flow logs.
	Namespace, Name, ServiceAccount string
	// NamedPorts are sorted by name.
	NamedPorts []NamedPort
}

// NamedPort is a port that rules and services may refer to by name.
type NamedPort struct {
	Name     string
	Port     uint16
	Protocol Protocol
}
