// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

// ClusterConfig is what a cluster says about itself to those that connect to it. It is comparable.
type ClusterConfig struct {
	// ID is the cluster's number; 0 when not set.
	ID uint32
	// SyncedCanaries: a synced mark is written per resource, and readers must wait for it.
	SyncedCanaries bool
	// Cached: the rows are in the cached layout (see Scope.Cached).
	Cached bool
	// MaxConnectedClusters is 255, 511, or 0 for not said (means 255).
	MaxConnectedClusters uint32
	// ServiceExports tells whether the cluster writes service exports.
	ServiceExports Switch
	// EndpointSlices is one of the EndpointSlices constants.
	EndpointSlices string
}

// Switch is a boolean that may be absent.
type Switch uint8

// The three positions of a Switch.
const (
	Absent Switch = iota
	Off
	On
)

// The modes of exporting endpoint slices. Any other text refuses the connection.
const (
	EndpointSlicesNone = ""
	EndpointSlicesBoth = "services-and-endpointslices"
	EndpointSlicesOnly = "endpointslices-only"
)
