// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"strings"

	"github.com/weft-net/weft/kvstore/schema"
)

// OwnedBy tells who owns a row: the name of a node, OwnerOperator or OwnerEverybody. It is given
// before Run; without it the kind of row decides. The rows of an owner that is told hang on no node's
// lease.
func (w *Watch[K, V]) OwnedBy(owner func(K, V) string) { w.owner = owner }

// ownerOf returns who owns a row. The rows of a node have its name, in the key or by the address of
// their host.
func (w *Watch[K, V]) ownerOf(k K, v V) string {
	if w.owner != nil {
		return w.owner(k, v)
	}
	switch k := any(k).(type) {
	case schema.NodeKey:
		return k.Name
	case schema.EndpointKey:
		return k.Node
	case schema.ServiceKey, schema.DefinitionKey:
		return OwnerOperator
	}
	if ip, ok := any(v).(schema.IP); ok && ip.HostIP.IsValid() {
		return w.follow.guard.nodeAt(ip.HostIP)
	}
	return OwnerEverybody
}

// learn remembers a node and its addresses: rows of addresses name only those.
func (w *Watch[K, V]) learn(k K, v V) {
	n, ok := any(v).(schema.Node)
	if !ok || w.follow.guard == nil {
		return
	}
	w.follow.guard.nodeIs(n.Name, w.raw(k))
	for _, a := range n.Addresses {
		w.follow.guard.nodeHas(n.Name, a.IP)
	}
}

// resourceOf is the word for the rows under a prefix.
func resourceOf(prefix string) string {
	switch {
	case strings.HasPrefix(prefix, schema.IPsPrefix), strings.HasPrefix(prefix, schema.CachedIPsPrefix):
		return "ips"
	case strings.HasPrefix(prefix, schema.NodesPrefix), strings.HasPrefix(prefix, schema.CachedNodesPrefix):
		return "nodes"
	case strings.HasPrefix(prefix, schema.IdentitiesPrefix), strings.HasPrefix(prefix, schema.CachedIdentityPrefix):
		return "identities"
	case strings.HasPrefix(prefix, schema.ServicesPrefix), strings.HasPrefix(prefix, schema.CachedServicesPrefix):
		return "services"
	case strings.HasPrefix(prefix, schema.EndpointsPrefix):
		return "endpoints"
	case strings.HasPrefix(prefix, schema.DefinitionsPrefix):
		return "definitions"
	}
	return strings.TrimSuffix(prefix, "/")
}

// clusterOwned says whether a row is one of the cluster, which hang on no lease: an operator that is
// down withdraws nothing. What a node says of an identity, a reference, is its own.
func clusterOwned(key string) bool {
	switch resourceOf(key) {
	case "definitions", "services":
		return true
	case "identities":
		return !strings.HasPrefix(key, schema.IdentityValuesPrefix) && !strings.HasPrefix(key, schema.IdentityLocksPrefix)
	}
	for _, prefix := range []string{schema.ClusterConfigPrefix, schema.SyncedPrefix, schema.CachePrefix, schema.VIPsPrefix, schema.RestingPrefix} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}
