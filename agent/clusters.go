// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"slices"

	"github.com/weft-net/weft/datapath"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

func equalClusters(a, b datapath.Cluster) bool {
	return a.ID == b.ID && slices.Equal(a.Pinned, b.Pinned)
}

// clusters derives the clusters of the mesh from the nodes that are known of them.
type clusters struct {
	cfg      Config
	nodes    *state.Table[schema.NodeKey, schema.Node]
	clusters *state.Table[string, datapath.Cluster]
}

// Run derives until ctx ends.
func (c *clusters) Run(ctx context.Context) error {
	c.clusters.Put(derived, 0, c.cfg.Cluster, datapath.Cluster{ID: c.cfg.ClusterID, Pinned: c.cfg.PodCIDRs})
	nodes := c.nodes.Cursor()
	defer nodes.Close()
	members := map[string]map[string]bool{}
	return state.Derive(ctx, c.clusters, derived, func() error {
		for _, change := range nodes.Next(0) {
			name := change.Key.Cluster
			if name == c.cfg.Cluster {
				continue
			}
			if members[name] == nil {
				members[name] = map[string]bool{}
			}
			if !change.Deleted {
				members[name][change.Key.Name] = true
				c.clusters.Put(derived, 0, name, datapath.Cluster{ID: change.Value.ClusterID})
				continue
			}
			if delete(members[name], change.Key.Name); len(members[name]) == 0 {
				delete(members, name)
				c.clusters.Delete(derived, 0, name)
			}
		}
		return nil
	}, nodes)
}
