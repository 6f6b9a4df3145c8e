// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"fmt"
	"math/bits"
	"regexp"
)

// MaxClusterName is the longest cluster name, in bytes.
const MaxClusterName = 32

// MinAllocatedIdentity is the first number that is not reserved.
const MinAllocatedIdentity = 256

var clusterName = regexp.MustCompile("^([a-z0-9][-a-z0-9]*)?[a-z0-9]$")

// CheckClusterName tells why a name cannot be that of a cluster.
func CheckClusterName(name string) error {
	if len(name) > MaxClusterName {
		return fmt.Errorf("cluster name %q: %d bytes, more than %d", clip(name, MaxClusterName), len(name), MaxClusterName)
	}
	if !clusterName.MatchString(name) {
		return fmt.Errorf("cluster name %q: want lower case letters, digits and inner hyphens", name)
	}
	return nil
}

// CheckClusterID tells why a number cannot be that of a cluster in a mesh of max clusters (0 means
// 255).
func CheckClusterID(id, max uint32) error {
	if max == 0 {
		max = 255
	}
	if max != 255 && max != 511 {
		return fmt.Errorf("max clusters %d: want 255 or 511", max)
	}
	if id == 0 || id > max {
		return fmt.Errorf("cluster id %d: want 1 to %d", id, max)
	}
	return nil
}

// IdentityRange returns the first and last identity number of a cluster in a mesh of max clusters
// (0 means 255). Cluster 0, one outside any mesh, has the numbers 256 to 65535.
func IdentityRange(cluster, max uint32) (first, last uint32) {
	if max == 0 {
		max = 255
	}
	shift := 24 - bits.Len32(max)
	if cluster == 0 {
		return MinAllocatedIdentity, 1<<shift - 1
	}
	return cluster << shift, (cluster+1)<<shift - 1
}

// maxClusters returns the size of the mesh with the default filled in.
func (s Scope) maxClusters() uint32 {
	if s.MaxClusters == 0 {
		return 255
	}
	return s.MaxClusters
}

// identityInRange tells whether a number may be used by this cluster's rows: one of its range.
func (s Scope) identityInRange(id uint32) bool {
	first, last := IdentityRange(s.ClusterID, s.maxClusters())
	return id >= first && id <= last
}
