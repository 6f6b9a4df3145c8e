// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"net/netip"
	"strconv"
)

// Prefixes and keys of the open schema. Prefixes end in a slash, keys do not.
const (
	HeartbeatKey        = "cilium/.heartbeat"
	ClusterConfigPrefix = "cilium/cluster-config/"
	SyncedPrefix        = "cilium/synced/"
	StatePrefix         = "cilium/state/"
	CachePrefix         = "cilium/cache/"

	NodesPrefix           = "cilium/state/nodes/v1/"
	IPsPrefix             = "cilium/state/ip/v1/default/"
	IdentitiesPrefix      = "cilium/state/identities/v1/"
	IdentityIDsPrefix     = "cilium/state/identities/v1/id/"
	IdentityValuesPrefix  = "cilium/state/identities/v1/value/"
	IdentityLocksPrefix   = "cilium/state/identities/v1/locks/"
	ServicesPrefix        = "cilium/state/services/v1/"
	ServiceExportsPrefix  = "cilium/state/serviceexports/v1/"
	EndpointSlicesPrefix  = "cilium/state/endpointslices/v1/"
	CachedNodesPrefix     = "cilium/cache/nodes/v1/"
	CachedIPsPrefix       = "cilium/cache/ip/v1/"
	CachedIdentityPrefix  = "cilium/cache/identities/v1/"
	CachedServicesPrefix  = "cilium/cache/services/v1/"
	HeartbeatReadPrefix   = HeartbeatKey // watched as a prefix without a slash
	InitLockPrefix        = "cilium/.initlock/"
	MirrorElectionsPrefix = "cilium/kvstoremesh-lock/"
)

// Prefixes and keys of weft's own rows. No Cilium peer reads or needs them.
const (
	WeftPrefix = "weft/v1/"
	EpochKey   = "weft/v1/epoch"
	// RestoredKey holds the ID of the epoch in which an operator put back the rows of the cluster, so
	// that one with an older copy does not put back what was deleted since.
	RestoredKey       = "weft/v1/restored"
	EndpointsPrefix   = "weft/v1/endpoints/"
	DefinitionsPrefix = "weft/v1/services/"
	VIPsPrefix        = "weft/v1/vips/"
	OwnersPrefix      = "weft/v1/owners/"
	// MirrorsPrefix holds what the mirror says of each remote cluster, ForgetPrefix the remotes of which
	// somebody said that they are gone for good.
	MirrorsPrefix = "weft/v1/mirror/"
	ForgetPrefix  = "weft/v1/forget/"
	// RestingPrefix holds identity numbers that were freed and must not be given out yet.
	RestingPrefix = "weft/v1/resting/"
	// ElectionsPrefix holds the elections of the operator, <ElectionsPrefix><name>/<lease>.
	ElectionsPrefix = "weft/v1/elections/"
)

// NodeKey names a node in the mesh.
type NodeKey struct{ Cluster, Name string }

// IPKey names an address or a prefix of a cluster. Cluster is not on the wire, it comes from the
// Scope. Prefix has no host bits; an address is a prefix of its full length.
type IPKey struct {
	Cluster string
	Prefix  netip.Prefix
}

// ServiceKey names a service of one cluster.
type ServiceKey struct{ Cluster, Namespace, Name string }

// IdentityKey names an identity. Cluster comes from the Scope.
type IdentityKey struct {
	Cluster string
	ID      uint32
}

// EndpointKey names an endpoint; ID is unique on its node. Cluster comes from the Scope.
type EndpointKey struct {
	Cluster, Node string
	ID            uint32
}

// DefinitionKey names a service definition of this cluster.
type DefinitionKey struct{ Namespace, Name string }

// String returns cluster/name.
func (k NodeKey) String() string { return k.Cluster + "/" + k.Name }

// String returns the address or prefix.
func (k IPKey) String() string { return formatIP(k.Prefix) }

// String returns cluster/namespace/name.
func (k ServiceKey) String() string { return k.Cluster + "/" + k.Namespace + "/" + k.Name }

// String returns the decimal number.
func (k IdentityKey) String() string { return strconv.FormatUint(uint64(k.ID), 10) }

// String returns node/id.
func (k EndpointKey) String() string {
	return k.Node + "/" + strconv.FormatUint(uint64(k.ID), 10)
}

// String returns namespace/name.
func (k DefinitionKey) String() string { return k.Namespace + "/" + k.Name }

// Resource is a kind of row that a cluster shows to its remotes.
type Resource string

// The resources whose first list is announced by a synced mark.
const (
	ResourceNodes      Resource = "nodes"
	ResourceIPs        Resource = "ip"
	ResourceIdentities Resource = "identities"
	ResourceServices   Resource = "services"
	// ResourceEndpointSlices is there only where the cluster-config says so.
	ResourceEndpointSlices Resource = "endpointslices"
)

// SyncedKey returns the key of the mark that says: all rows of this kind of this cluster have been
// written. Its value is a time (see EncodeTime). In the cached layout the mark names the cache form.
func SyncedKey(cluster string, r Resource, cached bool) string {
	form := StatePrefix
	if cached {
		form = CachePrefix
	}
	return SyncedPrefix + cluster + "/" + form + string(r) + "/v1"
}

// IdentityMasterKey returns the key that maps a number to its labels.
func IdentityMasterKey(id uint32) string {
	return IdentityIDsPrefix + strconv.FormatUint(uint64(id), 10)
}

// IdentityReferencesPrefix returns the prefix of all references to a label string (wire form, with
// the trailing semicolon). Labels may contain slashes, so a key under it is a reference of these
// labels only if no further slash follows.
func IdentityReferencesPrefix(labels string) string { return IdentityValuesPrefix + labels + "/" }

// IdentityReferenceKey returns the key by which a node says that it uses these labels.
func IdentityReferenceKey(labels string, node netip.Addr) string {
	return IdentityReferencesPrefix(labels) + node.String()
}

// IdentityLockPath returns the path, without trailing slash, under which Cilium's allocators lock a
// label string.
func IdentityLockPath(labels string) string { return IdentityLocksPrefix + labels }
