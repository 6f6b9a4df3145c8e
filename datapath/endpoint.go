// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import "net/netip"

// LocalEndpoint is a row of the table of endpoints of this node, written by the agent. It can be
// compared.
type LocalEndpoint struct {
	ID   uint16
	Slot uint16 // 1 to 65535, also the key of the row
	Name string // for logs and status
	// NetNSPath is the endpoint's network namespace. If it is empty or gone, changes of the
	// underlay's MTU do not reach the endpoint's routes.
	NetNSPath string
	IfName    string     // device on the node, from EndpointDevice
	IPv4      netip.Addr // zero: none
	IPv6      netip.Addr // zero: none
	MAC       [6]byte    // of the endpoint's side, from EndpointDevice
	Identity  uint32     // 0: not known yet, nothing may pass
}

// EndpointSpec is what AddEndpoint makes a device for.
type EndpointSpec struct {
	Slot      uint16 // 1 to 65535 and below Config.MaxEndpoints
	Name      string
	NetNSPath string
	Inside    string // device in the namespace; empty: eth0
	IPv4      netip.Addr
	IPv6      netip.Addr
}

// EndpointDevice is what AddEndpoint made.
type EndpointDevice struct {
	IfName  string // on the node
	IfIndex int    // EndpointIfIndexBase + slot
	MAC     [6]byte
	MTU     int // of the device, bytes
	PathMTU int // of the default routes, bytes
}
