// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"context"
	"log/slog"
	"strings"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// stored is what our own store says about copies of remotes, whoever wrote it.
type stored struct {
	own     string
	configs *state.Table[string, schema.ClusterConfig]
	marks   *state.Table[string, string]
	rows    *state.Table[string, schema.Mirror]
	forgets *state.Table[string, schema.Forget]
	peers   *state.Table[string, schema.Peer]
	watches []watch
}

// watch is a watch of any kind of row.
type watch interface {
	Run(ctx context.Context) error
	Listed() <-chan struct{}
}

func newStored(cfg Config, c *kvstore.Client, log *slog.Logger) *stored {
	s := &stored{
		own:     cfg.Cluster,
		configs: state.NewTable[string]("cluster-configs", state.Equal[schema.ClusterConfig]),
		marks:   state.NewTable[string]("synced-marks", state.Equal[string]),
		rows:    state.NewTable[string]("mirrors", state.Equal[schema.Mirror]),
		forgets: state.NewTable[string]("forgets", state.Equal[schema.Forget]),
		peers:   state.NewTable[string]("peers", schema.Peer.Equal),
	}
	follow := cfg.Follow
	follow.Source, follow.Guard = fromStore, nil
	s.watches = []watch{
		kvstore.NewWatch(c, schema.ClusterConfigs(), s.configs, follow, log),
		kvstore.NewWatch(c, schema.SyncedMarks(), s.marks, follow, log),
		kvstore.NewWatch(c, schema.Mirrors(), s.rows, follow, log),
		kvstore.NewWatch(c, schema.Forgets(), s.forgets, follow, log),
		kvstore.NewWatch(c, schema.Peers(), s.peers, follow, log),
	}
	return s
}

func (s *stored) runs() (runs []func(context.Context) error) {
	for _, w := range s.watches {
		runs = append(runs, w.Run)
	}
	return runs
}

// listed waits until all was listed once.
func (s *stored) listed(ctx context.Context) error {
	for _, w := range s.watches {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.Listed():
		}
	}
	return nil
}

// left tells whether somebody has ended the peering with a cluster.
func (s *stored) left(cluster string) bool {
	p, ok := s.peers.Get(cluster)
	return ok && p.Value.State == schema.PeerLeft
}

// clusters are the remotes of which there is something in our store: a row, a cached cluster-config, or a
// mark of a copy.
func (s *stored) clusters() map[string]bool {
	names := map[string]bool{}
	for r := range s.rows.All() {
		names[r.Key] = true
	}
	for r := range s.configs.All() {
		if r.Value.Cached {
			names[r.Key] = true
		}
	}
	for r := range s.marks.All() {
		if cluster, of, _ := strings.Cut(r.Key, "/"); strings.HasPrefix(of, schema.CachePrefix) {
			names[cluster] = true
		}
	}
	delete(names, s.own)
	return names
}

// markTail is a synced mark of a copy as the key of a row of marks.
func markTail(cluster string, r schema.Resource) string {
	return strings.TrimPrefix(schema.SyncedKey(cluster, r, true), schema.SyncedPrefix)
}
