// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"net/netip"

	"github.com/weft-net/weft/kvstore/schema"
)

// IPCacheEntry says what is known of an address or prefix: the row that the kernel gets.
type IPCacheEntry struct {
	Identity uint32
	// Node is the underlay address of the node that it is on, which packets are sent to in VXLAN
	// mode; the zero Addr for what is on no other node.
	Node netip.Addr
	// Slot is the local endpoint's, 0 for everything else.
	Slot uint16
	Kind Kind
	// Cluster is whose row this is.
	Cluster string
}

// Kind is what an ipcache entry was derived from. A lower one wins over a higher one of the same
// cluster.
type Kind uint8

// The kinds.
const (
	KindEndpoint Kind = iota // an endpoint of this node
	KindSelf                 // an address of this node
	KindNode                 // an address of another node
	KindIP                   // an ip row: an endpoint elsewhere, or a prefix
	KindPodCIDR              // addresses of a node that no other row names
	numKinds                 // how many there are
)

func (k Kind) String() string {
	return [numKinds]string{"endpoint", "self", "node", "ip", "pod-cidr"}[k]
}

// Identities that this package gives by itself.
const (
	identityHost       = 1
	identityWorld      = 2
	identityRemoteNode = 6
)

// Cluster is what the conflict rule knows of a cluster of the mesh.
type Cluster struct {
	ID uint32
	// Pinned are the pod CIDRs that were agreed on when the cluster joined.
	Pinned []netip.Prefix
}

// claim is a candidate for one prefix.
type claim struct {
	entry IPCacheEntry
	node  string // name of the node whose row it is, to break ties
}

// rank orders clusters that claim the same prefix: ours, then those it was pinned to at join, then
// the lower cluster id, unknown clusters last. Every node of the mesh comes to the same order of
// the others' clusters.
type rank struct {
	class   int
	id      uint64
	cluster string
}

func rankOf(cfg Config, clusters map[string]Cluster, cluster string, p netip.Prefix) rank {
	if cluster == cfg.Cluster {
		return rank{}
	}
	c, known := clusters[cluster]
	r := rank{class: 2, id: uint64(c.ID), cluster: cluster}
	if !known {
		r.id = 1 << 32
	}
	for _, pinned := range c.Pinned {
		if covers(pinned, p) {
			r.class = 1
		}
	}
	return r
}

func (r rank) compare(o rank) int {
	return cmp.Or(cmp.Compare(r.class, o.class), cmp.Compare(r.id, o.id), cmp.Compare(r.cluster, o.cluster))
}

// covers says that all of inner is in outer.
func covers(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// ipcacheRow decides between all claims to one prefix.
func ipcacheRow(cfg Config, clusters map[string]Cluster, p netip.Prefix, claims []claim) (IPCacheEntry, bool) {
	if len(claims) == 0 {
		return IPCacheEntry{}, false
	}
	best := claims[0]
	bestRank := rankOf(cfg, clusters, best.entry.Cluster, p)
	for _, c := range claims[1:] {
		r := rankOf(cfg, clusters, c.entry.Cluster, p)
		if cmp.Or(
			r.compare(bestRank),
			cmp.Compare(c.entry.Kind, best.entry.Kind),
			cmp.Compare(c.node, best.node),
		) < 0 {
			best, bestRank = c, r
		}
	}
	return best.entry, true
}

// selfRows are the claims that do not come from a table: the node's own addresses.
func selfRows(cfg Config) map[netip.Prefix]IPCacheEntry {
	rows := map[netip.Prefix]IPCacheEntry{}
	for _, list := range [][]netip.Addr{cfg.NodeIPs, cfg.InsideIPs} {
		for _, a := range list {
			rows[hostPrefix(a)] = IPCacheEntry{Identity: identityHost, Kind: KindSelf, Cluster: cfg.Cluster}
		}
	}
	return rows
}

// endpointRows are the claims of a local endpoint. Without an identity there are none: what is sent
// to it meets the node's stack until it has one.
func endpointRows(cfg Config, ep LocalEndpoint) map[netip.Prefix]IPCacheEntry {
	rows := map[netip.Prefix]IPCacheEntry{}
	if ep.Identity == 0 {
		return rows
	}
	for _, a := range []netip.Addr{ep.IPv4, ep.IPv6} {
		if a.IsValid() {
			rows[hostPrefix(a)] = IPCacheEntry{
				Identity: ep.Identity,
				Slot:     ep.Slot,
				Kind:     KindEndpoint,
				Cluster:  cfg.Cluster,
			}
		}
	}
	return rows
}

// nodeRows are the claims of another node: its addresses, and its pod CIDRs for endpoints whose ip
// row has not come yet. Those get no more than the world gets.
func nodeRows(cfg Config, key schema.NodeKey, n schema.Node) map[netip.Prefix]IPCacheEntry {
	rows := map[netip.Prefix]IPCacheEntry{}
	if isSelf(cfg, key) {
		return rows
	}
	node := nodeAddr(cfg, n)
	for _, p := range n.PodCIDRs {
		rows[p] = IPCacheEntry{Identity: identityWorld, Node: node, Kind: KindPodCIDR, Cluster: key.Cluster}
	}
	for _, a := range n.Addresses {
		if a.IP.IsValid() && !a.IP.IsUnspecified() {
			rows[hostPrefix(a.IP)] = IPCacheEntry{Identity: identityRemoteNode, Node: node, Kind: KindNode, Cluster: key.Cluster}
		}
	}
	return rows
}

// ipRow is the claim of an ip row. There is none for an address that is said to be on this node:
// what is here comes from the endpoints, and a row that says more is old.
//
// remap gives the address in the tunnel's family of the node that has one of the other family.
func ipRow(cfg Config, key schema.IPKey, ip schema.IP, remap func(netip.Addr) netip.Addr) (IPCacheEntry, bool) {
	for _, list := range [][]netip.Addr{cfg.NodeIPs, cfg.InsideIPs} {
		for _, a := range list {
			if ip.HostIP == a {
				return IPCacheEntry{}, false
			}
		}
	}
	e := IPCacheEntry{Identity: ip.ID, Kind: KindIP, Cluster: key.Cluster}
	if e.Identity == identityHost {
		e.Identity = identityRemoteNode // "host" is relative to who says it
	}
	switch {
	case !ip.HostIP.IsValid() || ip.HostIP.IsUnspecified():
	case cfg.Mode != ModeVXLAN || ip.HostIP.Is6() == cfg.tunnelIs6():
		e.Node = ip.HostIP
	default:
		e.Node = remap(ip.HostIP)
	}
	return e, true
}

func isSelf(cfg Config, key schema.NodeKey) bool {
	return key.Cluster == cfg.Cluster && key.Name == cfg.NodeName
}

// nodeAddr is the underlay address that a node is known by: in VXLAN mode one of the tunnel's
// family, or the zero Addr.
func nodeAddr(cfg Config, n schema.Node) netip.Addr {
	a := underlayAddr(n, cfg.tunnelIs6())
	if !a.IsValid() && cfg.Mode != ModeVXLAN {
		a = underlayAddr(n, !cfg.tunnelIs6())
	}
	return a
}

// underlayAddr is a node's address of a family in the underlay.
func underlayAddr(n schema.Node, is6 bool) netip.Addr {
	if a := n.Address(schema.InternalIP, is6); a.IsValid() {
		return a
	}
	return n.Address(schema.ExternalIP, is6)
}
