// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"bytes"
	"net/netip"
)

// Known is a cluster that a cluster has heard of.
type Known struct {
	Name     string
	ID       uint32
	PodCIDRs []netip.Prefix
	Root     string // DER; "" where it is not known
}

// check says why two clusters cannot be in one mesh, nil if they can. Both sides ask, each of the
// other and by what it knows: others are the clusters that ours has heard of, theirs perhaps among
// them.
func check(ours, theirs Facts, others []Known) *Refusal {
	switch {
	case theirs.Name == ours.Name:
		return refuse("give one of the two another name: it stands in its etcd, its agents' and its API servers' settings",
			"both clusters are called %s", ours.Name)
	case theirs.ID == ours.ID:
		return refuse("give one of the two another cluster-id before they have endpoints",
			"clusters %s and %s have the same id, %d", ours.Name, theirs.Name, ours.ID)
	case theirs.MaxClusters != ours.MaxClusters:
		return refuse("set max-clusters to the same in both: the numbers of identities are made of it",
			"cluster %s is of a mesh of %d clusters, %s of one of %d", ours.Name, ours.MaxClusters, theirs.Name, theirs.MaxClusters)
	case theirs.Mode != ours.Mode:
		return refuse("set mode to the same in both", "cluster %s sends packets between nodes by %s, %s by %s",
			ours.Name, ours.Mode, theirs.Name, clip(theirs.Mode, 32))
	case bytes.Equal(theirs.Root.Raw, ours.Root.Raw):
		return refuse("make a root for each cluster with 'weft cert init': with one root for both, each could speak for the other",
			"clusters %s and %s have the same root certificate", ours.Name, theirs.Name)
	}
	if a4, a6 := ours.families(); a4 || a6 {
		b4, b6 := theirs.families()
		if (b4 || b6) && !(a4 && b4) && !(a6 && b6) {
			return refuse("give the endpoints of one of them addresses of the other's family too",
				"clusters %s and %s have no family of addresses in common", ours.Name, theirs.Name)
		}
	}
	if p, q, ok := overlap(ours.PodCIDRs, theirs.PodCIDRs); ok {
		return refuse("give one of the clusters other pod CIDRs: an address must belong to one cluster",
			"pod CIDR %s of %s overlaps %s of %s", q, theirs.Name, p, ours.Name)
	}
	for _, o := range others {
		if o.Name == theirs.Name {
			if o.ID != theirs.ID {
				return refuse("give it its old cluster-id, or have "+ours.Name+" forget the old one: weft mesh leave, then weft mesh forget",
					"%s knows cluster %s by the id %d, not %d", ours.Name, o.Name, o.ID, theirs.ID)
			}
			continue
		}
		if o.ID == theirs.ID {
			return refuse("give one of the clusters another cluster-id before they have endpoints",
				"%s knows cluster id %d as that of cluster %s", ours.Name, o.ID, o.Name)
		}
		if o.Root == string(theirs.Root.Raw) {
			return refuse("make a root for each cluster with 'weft cert init': with one root for both, each could speak for the other",
				"the root certificate of %s is that of cluster %s", theirs.Name, o.Name)
		}
		if p, q, ok := overlap(o.PodCIDRs, theirs.PodCIDRs); ok {
			return refuse("give one of the clusters other pod CIDRs: an address must belong to one cluster",
				"pod CIDR %s of %s overlaps %s of cluster %s, which %s knows", q, theirs.Name, p, o.Name, ours.Name)
		}
	}
	return nil
}

// overlap finds a prefix of each list that share addresses.
func overlap(a, b []netip.Prefix) (p, q netip.Prefix, found bool) {
	for _, p := range a {
		for _, q := range b {
			if p.Overlaps(q) {
				return p, q, true
			}
		}
	}
	return p, q, false
}
