// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/kvstore/schema"
)

// Identities that a row may give to an address of a node without naming that node: they are no
// more than what an unknown address gets.
const (
	identityWorld     = 2
	identityUnmanaged = 3
)

// host says why the row of an address cannot be what it says: it is inside what a node of the
// cluster declares (a pod CIDR, an address of its own), and on another host. The key of such a row
// names no node, so a store cannot keep one node from writing another's. What nobody declares is
// not judged, nor a node that declares no address.
func (c *claims) host(cluster string, p netip.Prefix, row schema.IP) (reason string) {
	if !row.HostIP.IsValid() && (row.ID == identityWorld || row.ID == identityUnmanaged) {
		return ""
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	var owner schema.NodeKey
	var by netip.Prefix
	// owned looks at one declared prefix and tells whether the row is its owner's.
	owned := func(q netip.Prefix) bool {
		for _, key := range c.owners[q] {
			if key.Cluster != cluster {
				continue
			}
			hosts := c.nodes[key].hosts
			if len(hosts) == 0 || row.HostIP.IsValid() && slices.Contains(hosts, netip.PrefixFrom(row.HostIP, row.HostIP.BitLen())) {
				return true
			}
			if !by.IsValid() || by == q && strings.Compare(key.Name, owner.Name) < 0 {
				owner, by = key, q
			}
		}
		return false
	}
	for bits := p.Bits(); bits >= 0; bits-- {
		if c.lengths[family(p)][bits] > 0 && owned(netip.PrefixFrom(p.Addr(), bits).Masked()) {
			return ""
		}
	}
	if !by.IsValid() && !p.IsSingleIP() {
		// A wider prefix may hold what others declare; it is judged by the first that is not its own.
		for _, q := range c.insideLocked(p) {
			if !owned(q) && by.IsValid() {
				break
			}
		}
	}
	switch {
	case !by.IsValid():
		return ""
	case !row.HostIP.IsValid():
		return fmt.Sprintf("names no host, and %s is node %s's", by, owner.Name)
	default:
		return fmt.Sprintf("on host %s, and %s is node %s's", row.HostIP, by, owner.Name)
	}
}

// insideLocked are the prefixes that are declared inside of one, in order: there are few nodes that
// declare, and few rows of prefixes.
func (c *claims) insideLocked(p netip.Prefix) (inside []netip.Prefix) {
	for q := range c.byPrefix {
		if q.Bits() > p.Bits() && p.Overlaps(q) {
			inside = append(inside, q)
		}
	}
	slices.SortFunc(inside, comparePrefixes)
	return inside
}

// ownLocked takes note of what a node declares.
func (c *claims) ownLocked(key schema.NodeKey, n nodeClaim) {
	if key.Name == "" {
		return // a pin is of a whole cluster
	}
	for _, list := range [][]netip.Prefix{n.podCIDRs, n.hosts} {
		for _, p := range list {
			if !slices.Contains(c.owners[p], key) {
				c.owners[p] = append(c.owners[p], key)
			}
		}
	}
}

// disownLocked forgets what a node declared.
func (c *claims) disownLocked(key schema.NodeKey, n nodeClaim) {
	for _, list := range [][]netip.Prefix{n.podCIDRs, n.hosts} {
		for _, p := range list {
			left := slices.DeleteFunc(c.owners[p], func(k schema.NodeKey) bool { return k == key })
			if c.owners[p] = left; len(left) == 0 {
				delete(c.owners, p)
			}
		}
	}
}
