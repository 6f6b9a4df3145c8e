// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// Tables is where the rows of all clusters come together. Ours are in them too, from other sources
// than cluster/<name>; what our nodes declare in Nodes is what no remote may claim.
type Tables struct {
	Nodes      *state.Table[schema.NodeKey, schema.Node]
	IPs        *state.Table[schema.IPKey, schema.IP]
	Identities *state.Table[schema.IdentityKey, string]
	Services   *state.Table[schema.ServiceKey, schema.ClusterService]
}

// marked is what every table can do whatever its rows are.
type marked interface {
	Expect(src ...state.Source)
	MarkSynced(src state.Source)
	Drop(src state.Source) int
}

func (t Tables) all() []marked { return []marked{t.Nodes, t.IPs, t.Identities, t.Services} }

// expect makes the tables wait for a source before anything is pruned.
func (t Tables) expect(src state.Source) {
	for _, x := range t.all() {
		x.Expect(src)
	}
}

// drop deletes all rows of a source.
func (t Tables) drop(src state.Source) (rows int) {
	for _, x := range t.all() {
		rows += x.Drop(src)
	}
	return rows
}

// SourceOf is the source that the rows of a remote cluster carry.
func SourceOf(cluster string) state.Source { return state.Source("cluster/" + cluster) }
