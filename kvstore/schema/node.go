// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"maps"
	"net/netip"
	"slices"
)

// AddressType is what an address of a node is for.
type AddressType string

// The address types of nodes. A Hostname or DNS entry of a foreign writer is read like any other.
const (
	InternalIP       AddressType = "InternalIP"
	ExternalIP       AddressType = "ExternalIP"
	CiliumInternalIP AddressType = "CiliumInternalIP"
)

// NodeAddress is one address of a node.
type NodeAddress struct {
	Type AddressType
	IP   netip.Addr
}

// Node is a machine that runs an agent.
type Node struct {
	Name, Cluster string
	ClusterID     uint32
	// Addresses in the order of the row: the first InternalIP of a family is the one tunnels end at.
	Addresses []NodeAddress
	// PodCIDRs are masked and without duplicates, IPv4 before IPv6, the primary one of a family first.
	PodCIDRs []netip.Prefix
	// HealthIPv4 and the following three are the zero Addr when not set.
	HealthIPv4, HealthIPv6   netip.Addr
	IngressIPv4, IngressIPv6 netip.Addr
	// Source is the writer's word for where it knew the node from; readers ignore it.
	Source string
	// EncryptionKey is 0 for none.
	EncryptionKey       uint8
	Labels, Annotations map[string]string
	WireguardPubKey     string
	BootID              string
}

// Address returns the node's first address of a type and family, or the zero Addr.
func (n Node) Address(t AddressType, v6 bool) netip.Addr {
	for _, a := range n.Addresses {
		if a.Type == t && a.IP.Is6() == v6 {
			return a.IP
		}
	}
	return netip.Addr{}
}

// Equal tells whether two rows say the same.
func (n Node) Equal(o Node) bool {
	return n.Name == o.Name && n.Cluster == o.Cluster && n.ClusterID == o.ClusterID &&
		slices.Equal(n.Addresses, o.Addresses) && slices.Equal(n.PodCIDRs, o.PodCIDRs) &&
		n.HealthIPv4 == o.HealthIPv4 && n.HealthIPv6 == o.HealthIPv6 &&
		n.IngressIPv4 == o.IngressIPv4 && n.IngressIPv6 == o.IngressIPv6 &&
		n.Source == o.Source && n.EncryptionKey == o.EncryptionKey &&
		maps.Equal(n.Labels, o.Labels) && maps.Equal(n.Annotations, o.Annotations) &&
		n.WireguardPubKey == o.WireguardPubKey && n.BootID == o.BootID
}
