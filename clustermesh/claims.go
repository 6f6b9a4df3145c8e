// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// claims says which cluster an address belongs to, by what the nodes of all clusters declare: their
// pod CIDRs and their own addresses. Where two clusters declare the same, ours goes first, then
// what was pinned when a remote joined, then the lower cluster id. That depends on nothing that one
// node knows and another does not, so all nodes of a cluster come to the same verdict.
type claims struct {
	own string

	mu       sync.RWMutex
	pins     map[string]Pin
	nodes    map[schema.NodeKey]nodeClaim
	byPrefix map[netip.Prefix][]claimant
	// lengths counts the prefixes of each length, IPv4 then IPv6.
	lengths [2][129]int
	// declares counts the pod CIDRs of each cluster.
	declares map[string]int
	// owners are the nodes behind the claimants, those that pins stand for left out.
	owners map[netip.Prefix][]schema.NodeKey
	// applied is the revision of the nodes table that the claims are of; moved is closed and
	// replaced when it grows.
	applied uint64
	moved   chan struct{}
}

// nodeClaim is what one node declares.
type nodeClaim struct {
	id       uint32
	podCIDRs []netip.Prefix
	// hosts are its addresses as prefixes of one address.
	hosts []netip.Prefix
}

func (n nodeClaim) equal(o nodeClaim) bool {
	return n.id == o.id && slices.Equal(n.podCIDRs, o.podCIDRs) && slices.Equal(n.hosts, o.hosts)
}

// claimant is a cluster that declares a prefix, by some of its nodes.
type claimant struct {
	cluster string
	id      uint32
	nodes   int
}

func newClaims(own string, pins map[string]Pin) *claims {
	c := &claims{
		own: own, pins: make(map[string]Pin),
		nodes:    make(map[schema.NodeKey]nodeClaim),
		byPrefix: make(map[netip.Prefix][]claimant),
		declares: make(map[string]int),
		owners:   make(map[netip.Prefix][]schema.NodeKey),
		moved:    make(chan struct{}),
	}
	for name, pin := range pins {
		c.pin(name, pin)
	}
	return c
}

// set takes what a node declares and tells whether that changed anything.
func (c *claims) set(key schema.NodeKey, n schema.Node) (changed bool) {
	now := nodeClaim{id: n.ClusterID, podCIDRs: slices.Clone(n.PodCIDRs)}
	for _, a := range n.Addresses {
		if a.IP.IsValid() && !a.IP.IsLoopback() {
			now.hosts = append(now.hosts, netip.PrefixFrom(a.IP, a.IP.BitLen()))
		}
	}
	slices.SortFunc(now.hosts, comparePrefixes)
	now.hosts = slices.Compact(now.hosts)
	c.mu.Lock()
	defer c.mu.Unlock()
	old, ok := c.nodes[key]
	if ok && old.equal(now) {
		return false
	}
	c.addLocked(key.Cluster, now, 1)
	c.addLocked(key.Cluster, old, -1)
	c.disownLocked(key, old)
	c.ownLocked(key, now)
	c.nodes[key] = now
	return true
}

// remove forgets a node and tells whether that changed anything.
func (c *claims) remove(key schema.NodeKey) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, ok := c.nodes[key]
	if !ok {
		return false
	}
	c.addLocked(key.Cluster, old, -1)
	c.disownLocked(key, old)
	delete(c.nodes, key)
	return true
}

func (c *claims) addLocked(cluster string, n nodeClaim, by int) {
	for _, p := range n.podCIDRs {
		if c.declares[cluster] += by; c.declares[cluster] == 0 {
			delete(c.declares, cluster)
		}
		c.countLocked(cluster, n.id, p, by)
	}
	for _, p := range n.hosts {
		c.countLocked(cluster, n.id, p, by)
	}
}

func (c *claims) countLocked(cluster string, id uint32, p netip.Prefix, by int) {
	list, existed := c.byPrefix[p]
	i := slices.IndexFunc(list, func(x claimant) bool { return x.cluster == cluster && x.id == id })
	if i < 0 {
		i = len(list)
		list = append(list, claimant{cluster: cluster, id: id})
	}
	if list[i].nodes += by; list[i].nodes == 0 {
		list = slices.Delete(list, i, i+1)
	}
	switch {
	case len(list) == 0:
		delete(c.byPrefix, p)
		if existed {
			c.lengths[family(p)][p.Bits()]--
		}
		return
	case !existed:
		c.lengths[family(p)][p.Bits()]++
	}
	c.byPrefix[p] = list
}

// advance says that the claims are those of the nodes table at a revision.
func (c *claims) advance(revision uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if revision > c.applied {
		c.applied = revision
		close(c.moved)
		c.moved = make(chan struct{})
	}
}

// reach waits until the claims are those of a revision of the nodes table or later.
func (c *claims) reach(ctx context.Context, revision uint64) error {
	for {
		c.mu.RLock()
		applied, moved := c.applied, c.moved
		c.mu.RUnlock()
		if applied >= revision {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		}
	}
}

// after waits until a watch of nodes has listed and the claims are those of what it found.
func (c *claims) after(ctx context.Context, listed <-chan struct{}, nodes *state.Table[schema.NodeKey, schema.Node]) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-listed:
	}
	return c.reach(ctx, nodes.Revision())
}

// conflict names the cluster, if any, that goes before this one for an address of the prefix.
func (c *claims) conflict(cluster string, id uint32, p netip.Prefix) (owner string, by netip.Prefix, found bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	me := c.rank(cluster, id, p)
	beaten := func(q netip.Prefix, list []claimant) bool {
		for _, x := range list {
			if x.cluster != cluster && c.rank(x.cluster, x.id, q).compare(me) < 0 {
				owner, by = x.cluster, q
				return true
			}
		}
		return false
	}
	for bits := p.Bits(); bits >= 0; bits-- {
		if c.lengths[family(p)][bits] == 0 {
			continue
		}
		q := netip.PrefixFrom(p.Addr(), bits).Masked()
		if list, ok := c.byPrefix[q]; ok && beaten(q, list) {
			return owner, by, true
		}
	}
	if p.IsSingleIP() {
		return "", by, false
	}
	// What others declare inside a prefix: the first in order is named, so that all nodes name the same.
	for _, q := range c.insideLocked(p) {
		if beaten(q, c.byPrefix[q]) {
			return owner, by, true
		}
	}
	return "", by, false
}

// covers tells whether a cluster's nodes declare the prefix, or declare nothing.
func (c *claims) covers(cluster string, p netip.Prefix) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.declares[cluster] == 0 {
		return true
	}
	for bits := p.Bits(); bits >= 0; bits-- {
		if c.lengths[family(p)][bits] == 0 {
			continue
		}
		for _, x := range c.byPrefix[netip.PrefixFrom(p.Addr(), bits).Masked()] {
			if x.cluster == cluster {
				return true
			}
		}
	}
	return false
}

// rank orders clusters that claim the same: the lower goes first.
type rank struct {
	class int
	id    uint32
	name  string
}

func (r rank) compare(o rank) int {
	return cmp.Or(cmp.Compare(r.class, o.class), cmp.Compare(r.id, o.id), strings.Compare(r.name, o.name))
}

// rank of a cluster that claims the prefix.
func (c *claims) rank(cluster string, id uint32, p netip.Prefix) rank {
	switch {
	case cluster == c.own:
		return rank{class: 0}
	case slices.ContainsFunc(c.pins[cluster].PodCIDRs, func(q netip.Prefix) bool {
		return q.Bits() <= p.Bits() && q.Overlaps(p)
	}):
		return rank{1, id, cluster}
	default:
		return rank{2, id, cluster}
	}
}

func family(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 0
	}
	return 1
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
