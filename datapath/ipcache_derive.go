// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// derivedSource is the writer of derived tables.
const derivedSource state.Source = "derived"

// deriveBatch is how many changes of a table one round takes in.
const deriveBatch = 4096

// ipcacheView is what the ipcache is derived from, kept up to date by changes. It belongs to one
// goroutine. Ip rows are not copied: they are looked up where they are.
type ipcacheView struct {
	cfg      Config
	self     map[netip.Prefix]IPCacheEntry
	clusters map[string]Cluster
	// claims of local endpoints and of nodes, by prefix and then by who claims.
	endpoints map[netip.Prefix]map[uint16]IPCacheEntry
	nodes     map[netip.Prefix]map[schema.NodeKey]IPCacheEntry
	// owned are the prefixes of each claimer, to take them away again.
	ownedByEndpoint map[uint16][]netip.Prefix
	ownedByNode     map[schema.NodeKey][]netip.Prefix
	// tunnels is where a node address of the other family leads.
	tunnels map[netip.Addr]netip.Addr
	byNode  map[schema.NodeKey][]netip.Addr // keys of tunnels
	// ipClusters are the clusters that have ip rows, with how many.
	ipClusters map[string]int
	ips        func(schema.IPKey) (schema.IP, bool)
	dirty      map[netip.Prefix]struct{}
}

func newIPCacheView(cfg Config, ips func(schema.IPKey) (schema.IP, bool)) *ipcacheView {
	v := &ipcacheView{
		cfg:             cfg,
		self:            selfRows(cfg),
		clusters:        map[string]Cluster{},
		endpoints:       map[netip.Prefix]map[uint16]IPCacheEntry{},
		nodes:           map[netip.Prefix]map[schema.NodeKey]IPCacheEntry{},
		ownedByEndpoint: map[uint16][]netip.Prefix{},
		ownedByNode:     map[schema.NodeKey][]netip.Prefix{},
		tunnels:         map[netip.Addr]netip.Addr{},
		byNode:          map[schema.NodeKey][]netip.Addr{},
		ipClusters:      map[string]int{},
		ips:             ips,
		dirty:           map[netip.Prefix]struct{}{},
	}
	for p := range v.self {
		v.dirty[p] = struct{}{}
	}
	return v
}

// claimAll replaces the claims of one claimer.
func claimAll[K comparable](
	v *ipcacheView, k K, rows map[netip.Prefix]IPCacheEntry,
	claims map[netip.Prefix]map[K]IPCacheEntry, owned map[K][]netip.Prefix,
) {
	for _, p := range owned[k] {
		delete(claims[p], k)
		if len(claims[p]) == 0 {
			delete(claims, p)
		}
		v.dirty[p] = struct{}{}
	}
	delete(owned, k)
	for p, e := range rows {
		if claims[p] == nil {
			claims[p] = map[K]IPCacheEntry{}
		}
		claims[p][k] = e
		owned[k] = append(owned[k], p)
		v.dirty[p] = struct{}{}
	}
}

func (v *ipcacheView) applyEndpoints(changes []state.Change[uint16, LocalEndpoint]) {
	for _, c := range changes {
		var rows map[netip.Prefix]IPCacheEntry
		if !c.Deleted {
			rows = endpointRows(v.cfg, c.Value)
		}
		claimAll(v, c.Key, rows, v.endpoints, v.ownedByEndpoint)
	}
}

// applyNodes takes in changes of nodes and says whether tunnels of ip rows may have changed.
func (v *ipcacheView) applyNodes(changes []state.Change[schema.NodeKey, schema.Node]) (tunnels bool) {
	for _, c := range changes {
		var rows map[netip.Prefix]IPCacheEntry
		leads := map[netip.Addr]netip.Addr{}
		if !c.Deleted {
			rows = nodeRows(v.cfg, c.Key, c.Value)
			to := nodeAddr(v.cfg, c.Value)
			for _, a := range c.Value.Addresses {
				if v.cfg.Mode == ModeVXLAN && a.IP.IsValid() && a.IP.Is6() != v.cfg.tunnelIs6() && to.IsValid() {
					leads[a.IP] = to
				}
			}
		}
		claimAll(v, c.Key, rows, v.nodes, v.ownedByNode)
		for _, a := range v.byNode[c.Key] {
			if leads[a] != v.tunnels[a] {
				tunnels = true
				delete(v.tunnels, a)
			}
		}
		delete(v.byNode, c.Key)
		for a, to := range leads {
			tunnels = tunnels || v.tunnels[a] != to
			v.tunnels[a] = to
			v.byNode[c.Key] = append(v.byNode[c.Key], a)
		}
	}
	return tunnels
}

func (v *ipcacheView) applyIPs(changes []state.Change[schema.IPKey, schema.IP]) {
	for _, c := range changes {
		// Clusters are never forgotten: one too many costs a lookup that finds nothing.
		v.ipClusters[c.Key.Cluster]++
		v.dirty[c.Key.Prefix] = struct{}{}
	}
}

// applyClusters takes in changes of clusters and says whether conflicts may end differently.
func (v *ipcacheView) applyClusters(changes []state.Change[string, Cluster]) bool {
	for _, c := range changes {
		if c.Deleted {
			delete(v.clusters, c.Key)
		} else {
			v.clusters[c.Key] = c.Value
		}
	}
	return len(changes) > 0
}

// row is the entry of one prefix as the tables are now.
func (v *ipcacheView) row(p netip.Prefix) (IPCacheEntry, bool) {
	var claims []claim
	if e, ok := v.self[p]; ok {
		claims = append(claims, claim{entry: e})
	}
	for _, slot := range slices.Sorted(maps.Keys(v.endpoints[p])) {
		claims = append(claims, claim{entry: v.endpoints[p][slot]})
	}
	for key, e := range v.nodes[p] {
		claims = append(claims, claim{entry: e, node: key.Name})
	}
	for cluster := range v.ipClusters {
		key := schema.IPKey{Cluster: cluster, Prefix: p}
		ip, ok := v.ips(key)
		if !ok {
			continue
		}
		e, ok := ipRow(v.cfg, key, ip, func(a netip.Addr) netip.Addr { return v.tunnels[a] })
		if ok {
			claims = append(claims, claim{entry: e})
		}
	}
	return ipcacheRow(v.cfg, v.clusters, p, claims)
}

// deriveIPCache keeps the table out equal to what the inputs say.
func deriveIPCache(ctx context.Context, cfg Config, in Tables, out *state.Table[netip.Prefix, IPCacheEntry]) error {
	endpoints, nodes := in.Endpoints.Cursor(), in.Nodes.Cursor()
	ips, clusters := in.IPs.Cursor(), in.Clusters.Cursor()
	defer endpoints.Close()
	defer nodes.Close()
	defer ips.Close()
	defer clusters.Close()

	v := newIPCacheView(cfg, func(k schema.IPKey) (schema.IP, bool) {
		r, ok := in.IPs.Get(k)
		return r.Value, ok
	})
	return state.Derive(ctx, out, derivedSource, func() error {
		v.applyEndpoints(endpoints.Next(deriveBatch))
		again := v.applyClusters(clusters.Next(deriveBatch))
		again = v.applyNodes(nodes.Next(deriveBatch)) || again
		v.applyIPs(ips.Next(deriveBatch))
		if again {
			for r := range in.IPs.All() {
				v.dirty[r.Key.Prefix] = struct{}{}
			}
			for p := range v.nodes {
				v.dirty[p] = struct{}{}
			}
		}
		rows := make(map[netip.Prefix]IPCacheEntry, len(v.dirty))
		for p := range v.dirty {
			if e, ok := v.row(p); ok {
				rows[p] = e
			}
		}
		out.Update(func(w *state.Writer[netip.Prefix, IPCacheEntry]) {
			for p := range v.dirty {
				if e, ok := rows[p]; ok {
					w.Put(derivedSource, 0, p, e)
				} else {
					w.Delete(derivedSource, 0, p)
				}
			}
		})
		clear(v.dirty)
		return nil
	}, endpoints, nodes, ips, clusters)
}
