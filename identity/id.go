// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"strconv"

	"github.com/weft-net/weft/kvstore/schema"
)

// ID is the number of an identity. On the wire it has 24 bits; local numbers have a scope above them.
type ID uint32

// Reserved numbers mean the same in every cluster and are never allocated.
const (
	Unknown       ID = 0
	Host          ID = 1
	World         ID = 2
	Unmanaged     ID = 3
	Health        ID = 4
	Init          ID = 5
	RemoteNode    ID = 6
	KubeAPIServer ID = 7
	Ingress       ID = 8
	WorldIPv4     ID = 9
	WorldIPv6     ID = 10
)

// Bounds of the number space.
const (
	// FirstWellKnown to LastWellKnown are fixed numbers of well-known workloads.
	FirstWellKnown ID = 100
	LastWellKnown  ID = 115
	// FirstUserReserved to LastUserReserved are given to label sets by the user.
	FirstUserReserved ID = 128
	LastUserReserved  ID = 255
	// FirstAllocated is the first number that an allocator may give out.
	FirstAllocated ID = schema.MinAllocatedIdentity

	// LocalScope is the flag of numbers that mean something on this node only.
	LocalScope ID = 1 << 24
	// RemoteNodeScope is the flag of numbers that a node gives to other nodes.
	RemoteNodeScope ID = 2 << 24
	scopeMask       ID = 0xff << 24
)

// reservedNames are the names of the reserved numbers, by number. The last four stand for whole
// classes of peers in rules, and never in a packet.
var reservedNames = [...]string{
	"unknown", "host", "world", "unmanaged", "health", "init", "remote-node", "kube-apiserver", "ingress",
	"world-ipv4", "world-ipv6",
	"aggregate-cluster", "aggregate-cluster-mesh", "aggregate-world", "aggregate-remote-node",
}

// IsReserved tells whether a number is below those that are allocated: reserved, well-known or
// user-reserved.
func (id ID) IsReserved() bool { return id < FirstAllocated }

// IsLocal tells whether a number means something on this node only.
func (id ID) IsLocal() bool { return id&scopeMask != 0 }

// Cluster returns the cluster that a number is of, in a mesh of max clusters (0 means 255): 0 for
// one that is of none (reserved, local, or of an installation without a cluster number).
func (id ID) Cluster(max uint32) uint32 {
	if id.IsReserved() || id.IsLocal() {
		return 0
	}
	_, last := schema.IdentityRange(0, max)
	return uint32(id) / (last + 1)
}

// String returns the name of a reserved number, or the decimal number.
func (id ID) String() string {
	if int(id) < len(reservedNames) {
		return reservedNames[id]
	}
	return strconv.FormatUint(uint64(id), 10)
}

// Range returns the first and last number of a cluster in a mesh of max clusters (0 means 255).
func Range(cluster, max uint32) (first, last ID) {
	f, l := schema.IdentityRange(cluster, max)
	return ID(f), ID(l)
}

// OfRemote returns what a number in an ip row of another cluster means here: its host is a remote
// node to us.
func OfRemote(id ID) ID {
	if id == Host {
		return RemoteNode
	}
	return id
}

// ReservedLabels returns the labels of a reserved number below FirstWellKnown, or none.
func ReservedLabels(id ID) Labels {
	switch {
	case id == Unknown || int(id) >= len(reservedNames):
		return Labels{}
	case id == KubeAPIServer:
		return NewLabels(reserved("kube-apiserver"), reserved("remote-node"))
	}
	return NewLabels(reserved(reservedNames[id]))
}

func reserved(name string) Label { return Label{Source: SourceReserved, Key: name} }
