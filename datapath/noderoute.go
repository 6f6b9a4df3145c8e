// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/kvstore/schema"
)

// nodeRoutes are the routes by which the node's own stack reaches the endpoints of other nodes: in
// VXLAN mode through weft_host, in native mode through a node on the same link; what is further away
// is left to the underlay's own routes.
//
// A pod CIDR that covers what must stay reachable otherwise gets no route, and is named in refused.
// pathMTU is the underlay's MTU on the way to a node, 0 if not known.
func nodeRoutes(cfg Config, u underlay, dev hostDevices, clusters map[string]Cluster, nodes map[schema.NodeKey]schema.Node,
	pathMTU func(netip.Addr) int,
) (routes map[netip.Prefix]route, refused []string) {
	type owner struct {
		key  schema.NodeKey
		rank rank
	}
	routes = map[netip.Prefix]route{}
	owners := map[netip.Prefix]owner{}
	for key, n := range nodes {
		if isSelf(cfg, key) {
			continue
		}
		for _, p := range n.PodCIDRs {
			if why := unroutable(cfg, u, p); why != "" {
				refused = append(refused, fmt.Sprintf("%s of %s: %s", p, key, why))
				continue
			}
			o := owner{key, rankOf(cfg, clusters, key.Cluster, p)}
			if have, ok := owners[p]; ok {
				if c := have.rank.compare(o.rank); c < 0 || c == 0 && have.key.Name < key.Name {
					continue
				}
			}
			owners[p] = o
			if r, ok := routeTo(cfg, u, dev, n, p, pathMTU); ok {
				routes[p] = r
			} else {
				delete(routes, p)
			}
		}
	}
	slices.Sort(refused)
	return routes, refused
}

// unroutable says why a pod CIDR of another node gets no route, or nothing.
func unroutable(cfg Config, u underlay, p netip.Prefix) string {
	if p.Bits() == 0 {
		return "covers everything"
	}
	for _, own := range cfg.PodCIDRs {
		if own.Overlaps(p) {
			return "overlaps " + own.String() + " of this node"
		}
	}
	for _, list := range [][]netip.Addr{cfg.NodeIPs, cfg.InsideIPs} {
		for _, a := range list {
			if p.Contains(a) {
				return "contains " + a.String() + " of this node"
			}
		}
	}
	for _, a := range u.addrs {
		if p.Overlaps(a.Masked()) {
			return "overlaps the underlay's " + a.Masked().String()
		}
	}
	return ""
}

// routeTo is the route to one pod CIDR of a node.
func routeTo(cfg Config, u underlay, dev hostDevices, n schema.Node, p netip.Prefix, pathMTU func(netip.Addr) int) (route, bool) {
	is6 := p.Addr().Is6()
	if cfg.Mode == ModeVXLAN {
		there := nodeAddr(cfg, n)
		if !there.IsValid() {
			return route{}, false
		}
		mtu := cfg.pathMTU(u)
		// Links further on may carry less than our own; the node's own packets have no device in
		// between that would tell them.
		if way := pathMTU(there) - cfg.overhead(); way >= minMTU {
			mtu = min(mtu, way)
		}
		return route{dst: p, link: dev.hostIndex, src: addrOf(cfg.sources(), is6), mtu: mtu}, true
	}
	via := underlayAddr(n, is6)
	if !via.IsValid() || !u.onLink(via) {
		return route{}, false
	}
	return route{dst: p, link: u.index, via: via, src: addrOf(cfg.sources(), is6)}, true
}

// ensureRoutes makes weft's routes what they should be. Routes that nobody wants go only when
// everybody who could want them has spoken.
func (k *keeper) ensureRoutes(r *report, u underlay, dev hostDevices, first bool) error {
	t := k.e.d.tables
	synced := t.Nodes.Synced() && t.Endpoints.Synced() // before their rows are read: these are all then
	nodes := map[schema.NodeKey]schema.Node{}
	for row := range t.Nodes.All() {
		nodes[row.Key] = row.Value
	}
	clusters := map[string]Cluster{}
	for row := range t.Clusters.All() {
		clusters[row.Key] = row.Value
	}
	want, refused := nodeRoutes(k.e.d.cfg, u, dev, clusters, nodes, k.e.host.pathMTU)
	r.refused = refused
	for _, p := range k.e.d.cfg.PodCIDRs {
		want[p] = route{dst: p, unreachable: true}
	}
	for row := range t.Endpoints.All() {
		v := veth{slot: row.Value.Slot, ipv4: row.Value.IPv4, ipv6: row.Value.IPv6}
		for _, rt := range v.routes(k.e.d.cfg.sources()) {
			want[rt.dst] = rt
		}
	}
	have, err := ownRoutes(k.e.host)
	if err != nil {
		return err
	}
	var errs []error
	for p, rt := range want {
		if have[p] == rt || !rt.unreachable && !k.linkIsThere(rt.link) {
			continue
		}
		if err := rt.put(k.e.host); err != nil {
			errs = append(errs, err)
		} else if !first && k.applied[p] == rt {
			r.restored++
			r.restoredAt = r.at
		}
	}
	k.applied = want
	for p, rt := range have {
		slot, isEndpoint := slotOf(rt.link)
		if _, ok := want[p]; ok || !synced || isEndpoint && k.e.endpoints.isMade(slot) {
			continue
		}
		if err := rt.remove(k.e.host); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// linkIsThere says whether a route can be made at all; endpoints without a device are reported
// apart.
func (k *keeper) linkIsThere(index int) bool {
	l, err := k.e.host.linkAt(index)
	return err == nil && l != nil
}
