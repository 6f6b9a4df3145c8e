// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"slices"

	"github.com/weft-net/weft/agent/ipam"
	"github.com/weft-net/weft/datapath"
	"github.com/weft-net/weft/identity"
	"github.com/weft-net/weft/kvstore/schema"
)

// insideIPs are the node's own addresses in the cluster network: the first of each
// pod CIDR, which is also its endpoints' gateway. IPv4 comes first.
func (c Config) insideIPs() []netip.Addr {
	var inside []netip.Addr
	for _, p := range c.sortedPodCIDRs() {
		inside = append(inside, ipam.Gateway(p))
	}
	return inside
}

// sortedPodCIDRs has IPv4 first, as rows have it.
func (c Config) sortedPodCIDRs() []netip.Prefix {
	sorted := slices.Clone(c.PodCIDRs)
	slices.SortStableFunc(sorted, func(a, b netip.Prefix) int { return a.Addr().BitLen() - b.Addr().BitLen() })
	return sorted
}

// nodeRow is what the mesh is told of this node.
func (c Config) nodeRow() schema.Node {
	n := schema.Node{
		Name: c.Node, Cluster: c.Cluster, ClusterID: c.ClusterID, PodCIDRs: c.sortedPodCIDRs(), Source: "local",
	}
	for _, a := range c.Addresses {
		n.Addresses = append(n.Addresses, schema.NodeAddress{Type: schema.InternalIP, IP: a})
	}
	for _, a := range c.insideIPs() {
		n.Addresses = append(n.Addresses, schema.NodeAddress{Type: schema.CiliumInternalIP, IP: a})
	}
	return n
}

// scope is whose rows we write and, of our own store, read.
func (c Config) scope() schema.Scope {
	return schema.Scope{Cluster: c.Cluster, ClusterID: c.ClusterID, MaxClusters: c.MaxClusters}
}

// datapath is the part of the configuration that the datapath needs.
func (c Config) datapath() datapath.Config {
	d := datapath.DefaultConfig()
	d.Cluster, d.ClusterID, d.NodeName = c.Cluster, c.ClusterID, c.Node
	d.BPFRoot, d.Underlay, d.MTU = c.BPFFS, c.Underlay, c.MTU
	d.Mode = datapath.ModeVXLAN
	if c.Mode == ModeNative {
		d.Mode = datapath.ModeNative
	}
	d.IPv4, d.IPv6 = c.HasFamily(false), c.HasFamily(true)
	d.NodeIPs, d.InsideIPs, d.PodCIDRs = c.Addresses, c.insideIPs(), c.sortedPodCIDRs()
	d.MaxFlows, d.MaxYoungFlows, d.MaxFragments = c.Maps.Flows, c.Maps.YoungFlows, c.Maps.Fragments
	d.MaxIPCache, d.MaxPrefixes, d.MaxNodes = c.Maps.IPCache, c.Maps.IPCachePrefixes, c.Maps.Nodes
	d.MaxFrontends, d.MaxBackends, d.MaxEndpoints = c.Maps.Frontends, c.Maps.Backends, c.Maps.Endpoints
	d.EventBytes, d.MaxSockets, d.SocketCgroup = c.Maps.EventBytes, c.Maps.Sockets, c.SocketCgroup
	d.SocketLB, _ = datapath.ParseSocketLB(c.SocketLB) // Validate has refused any other
	return d
}

// labelFilter is the filter of the labels that identities stand for.
func (c Config) labelFilter() (*identity.Filter, error) {
	if len(c.Labels) == 0 {
		return identity.DefaultFilter(), nil
	}
	f, err := identity.NewFilter(c.Labels...)
	if err != nil {
		return nil, &ConfigError{Key: "labels", Reason: err.Error(), Hint: "write [!][source:]regexp"}
	}
	return f, nil
}
