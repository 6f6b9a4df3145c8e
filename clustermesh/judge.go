// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/kvstore/schema"
)

// verdict is what becomes of one row of a remote.
type verdict struct {
	// reason is empty where the row is taken as it is.
	reason string
	// refused: the row is not taken at all. Otherwise only a part of it is left out.
	refused bool
}

// judge decides about the rows of one remote, by the claims of all clusters. A fresh row is one
// that arrives; a row that was taken before is judged again when claims change, and then only loses
// to a cluster that goes before: nodes of its own that went away, or have another address now, take
// nothing with them.
type judge struct {
	claims  *claims
	cluster string
	id      uint32
}

// Identities that a cluster's own ip rows may carry for its nodes: what is "host" there is a
// remote node here.
const (
	identityHost       = 1
	identityRemoteNode = 6
)

func (j judge) node(_ schema.NodeKey, n schema.Node, _ bool) (schema.Node, verdict) {
	for _, a := range n.Addresses {
		if owner, by, bad := j.claims.conflict(j.cluster, j.id, netip.PrefixFrom(a.IP, a.IP.BitLen())); bad {
			return n, verdict{fmt.Sprintf("address %s of the node belongs to cluster %s (%s)", a.IP, owner, by), true}
		}
	}
	var v verdict
	for _, p := range n.PodCIDRs {
		if owner, by, bad := j.claims.conflict(j.cluster, j.id, p); bad {
			if !v.refused && v.reason == "" {
				n.PodCIDRs = slices.Clone(n.PodCIDRs)
			}
			n.PodCIDRs = slices.DeleteFunc(n.PodCIDRs, func(q netip.Prefix) bool { return q == p })
			v.reason = fmt.Sprintf("pod CIDR %s overlaps %s of cluster %s and is left out: give one of the clusters another", p, by, owner)
		}
	}
	return n, v
}

func (j judge) ip(k schema.IPKey, row schema.IP, fresh bool) (schema.IP, verdict) {
	if row.ID == identityHost {
		row.ID = identityRemoteNode
	}
	if owner, by, bad := j.claims.conflict(j.cluster, j.id, k.Prefix); bad {
		return row, verdict{fmt.Sprintf("belongs to cluster %s (%s)", owner, by), true}
	}
	if row.HostIP.IsValid() {
		if owner, by, bad := j.claims.conflict(j.cluster, j.id, netip.PrefixFrom(row.HostIP, row.HostIP.BitLen())); bad {
			return row, verdict{fmt.Sprintf("host %s belongs to cluster %s (%s)", row.HostIP, owner, by), true}
		}
	}
	if !fresh {
		return row, verdict{}
	}
	if !j.claims.covers(j.cluster, k.Prefix) {
		return row, verdict{"outside the pod CIDRs that the cluster's nodes declare", true}
	}
	if reason := j.claims.host(j.cluster, k.Prefix, row); reason != "" {
		return row, verdict{reason, true}
	}
	return row, verdict{}
}

func (j judge) identity(_ schema.IdentityKey, labels string, _ bool) (string, verdict) {
	return labels, verdict{}
}

// slice takes all: what is in one is not looked at here, and no table of ours is made of it.
func (j judge) slice(_ schema.ServiceKey, text string, _ bool) (string, verdict) {
	return text, verdict{}
}

func (j judge) service(_ schema.ServiceKey, s schema.ClusterService, _ bool) (schema.ClusterService, verdict) {
	var v verdict
	for a := range s.Backends {
		owner, by, bad := j.claims.conflict(j.cluster, j.id, netip.PrefixFrom(a, a.BitLen()))
		if !bad {
			continue
		}
		text := fmt.Sprintf("backend %s belongs to cluster %s (%s) and is left out", a, owner, by)
		if v.reason == "" {
			s.Backends = maps.Clone(s.Backends) // rows are shared
		}
		if v.reason == "" || text < v.reason {
			v.reason = text
		}
		delete(s.Backends, a)
	}
	return s, v
}
