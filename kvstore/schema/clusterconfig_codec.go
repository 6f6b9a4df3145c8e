// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import "fmt"

// wireConfig is the JSON form of a cluster-config row.
type wireConfig struct {
	ID           uint32           `json:"id,omitempty"`
	Capabilities wireCapabilities `json:"capabilities"`
}

type wireCapabilities struct {
	SyncedCanaries           bool   `json:"syncedCanaries,omitempty"`
	Cached                   bool   `json:"cached,omitempty"`
	MaxConnectedClusters     uint32 `json:"maxConnectedClusters,omitempty"`
	ServiceExportsEnabled    *bool  `json:"serviceExportsEnabled,omitempty"`
	EndpointSlicesExportMode string `json:"endpointSlicesExportMode,omitempty"`
}

// ClusterConfigs returns the codec of what clusters say about themselves, by cluster name. Decode
// only parses: whether a remote may be connected to is for CheckRemote.
func ClusterConfigs() Codec[string, ClusterConfig] {
	return Codec[string, ClusterConfig]{
		Prefix:    ClusterConfigPrefix,
		FormatKey: func(name string) string { return name },
		ParseKey: func(tail string) (string, error) {
			if err := CheckClusterName(tail); err != nil {
				return "", invalid(tail, "%v", err)
			}
			return tail, nil
		},
		Encode: encodeConfig,
		Decode: decodeConfig,
		Equal:  func(a, b ClusterConfig) bool { return a == b },
	}
}

func decodeConfig(name string, b []byte) (ClusterConfig, error) {
	var w wireConfig
	if err := decodeJSON(name, b, &w); err != nil {
		return ClusterConfig{}, err
	}
	c := ClusterConfig{
		ID: w.ID, SyncedCanaries: w.Capabilities.SyncedCanaries, Cached: w.Capabilities.Cached,
		MaxConnectedClusters: w.Capabilities.MaxConnectedClusters,
		EndpointSlices:       w.Capabilities.EndpointSlicesExportMode,
	}
	if e := w.Capabilities.ServiceExportsEnabled; e != nil {
		c.ServiceExports = Off
		if *e {
			c.ServiceExports = On
		}
	}
	return c, nil
}

func encodeConfig(name string, c ClusterConfig) ([]byte, error) {
	w := wireConfig{ID: c.ID, Capabilities: wireCapabilities{
		SyncedCanaries: c.SyncedCanaries, Cached: c.Cached,
		MaxConnectedClusters:     c.MaxConnectedClusters,
		EndpointSlicesExportMode: c.EndpointSlices,
	}}
	if c.ServiceExports != Absent {
		on := c.ServiceExports == On
		w.Capabilities.ServiceExportsEnabled = &on
	}
	return encodeJSON(name, w)
}

// CheckRemote tells why a cluster of localMax clusters (0 means 255) must not connect to a remote
// that says this about itself. Whether the id is ours or another remote's is not looked at. The size
// of the mesh is compared only by a cluster of 511: one of 255 takes any peer whose id it can hold.
func (c ClusterConfig) CheckRemote(localMax uint32) error {
	if err := CheckClusterID(c.ID, localMax); err != nil {
		return err
	}
	theirs := c.MaxConnectedClusters
	if theirs == 0 {
		theirs = 255
	}
	if localMax == 511 && theirs != localMax {
		return fmt.Errorf("max clusters %d: ours is %d", theirs, localMax)
	}
	switch c.EndpointSlices {
	case EndpointSlicesNone, EndpointSlicesBoth, EndpointSlicesOnly:
		return nil
	}
	return fmt.Errorf("endpoint slices export mode %q: not known", clip(c.EndpointSlices, 64))
}
