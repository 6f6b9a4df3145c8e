// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"context"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weft-net/weft/clustermesh"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// kept is what our own store had of remotes when this mirror began. A remote whose store lacks some of
// it may have lost it: that is for the guard to find out, not for an empty memory. It is let go resource
// by resource, as they are listed.
type kept struct {
	cfg    Config
	client *kvstore.Client
	tables clustermesh.Tables
	log    *slog.Logger

	mu       sync.Mutex
	clusters map[string]keptCluster
}

type keptCluster struct {
	id   uint32
	at   time.Time // when the copy was right; zero: nobody said
	rows map[schema.Resource][]kvstore.KV
}

func newKept(cfg Config, c *kvstore.Client, t clustermesh.Tables, log *slog.Logger) *kept {
	return &kept{cfg: cfg, client: c, tables: t, log: log, clusters: map[string]keptCluster{}}
}

// load reads our store, again and again until it answers. The error is that of ctx.
func (k *kept) load(ctx context.Context) error {
	for {
		err := k.read(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		k.log.Info("our store does not say what it has of remotes, they are not read before", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(k.cfg.Retry):
		}
	}
}

func (k *kept) read(ctx context.Context) error {
	configs, err := k.client.List(ctx, schema.ClusterConfigPrefix, kvstore.ListOptions{})
	if err != nil {
		return err
	}
	said, err := k.client.List(ctx, schema.MirrorsPrefix, kvstore.ListOptions{Revision: configs.Revision})
	if err != nil {
		return err
	}
	found := map[string]keptCluster{}
	codec := schema.ClusterConfigs()
	for _, kv := range configs.KVs {
		name := strings.TrimPrefix(kv.Key, codec.Prefix)
		config, err := codec.Decode(name, kv.Value)
		if err == nil && config.Cached && name != k.cfg.Cluster && schema.CheckClusterName(name) == nil {
			found[name] = keptCluster{id: config.ID, rows: map[schema.Resource][]kvstore.KV{}}
		}
	}
	for _, kv := range said.KVs {
		name := strings.TrimPrefix(kv.Key, schema.MirrorsPrefix)
		if c, ok := found[name]; ok {
			row, _ := schema.Mirrors().Decode(name, kv.Value)
			c.at = row.Confirmed
			found[name] = c
		}
	}
	for name, c := range found {
		for _, r := range resources {
			l, err := k.client.List(ctx, schema.MirrorPrefix(name, r), kvstore.ListOptions{Revision: configs.Revision})
			if err != nil {
				return err
			}
			for i := range l.KVs {
				l.KVs[i].Key = strings.TrimPrefix(l.KVs[i].Key, schema.MirrorPrefix(name, r))
			}
			c.rows[r] = l.KVs
		}
	}
	k.mu.Lock()
	k.clusters = found
	k.mu.Unlock()
	return nil
}

func (k *kept) cluster(name string) (keptCluster, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, ok := k.clusters[name]
	return c, ok
}

// drop forgets what was kept of a remote.
func (k *kept) drop(cluster string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.clusters, cluster)
}

// Clusters implements clustermesh.Kept.
func (k *kept) Clusters() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Keys(k.clusters))
}

// ID implements clustermesh.Kept.
func (k *kept) ID(cluster string) uint32 {
	c, _ := k.cluster(cluster)
	return c.id
}

// Rows implements clustermesh.Kept.
func (k *kept) Rows(cluster string, r schema.Resource) (iter.Seq[kvstore.KV], time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, ok := k.clusters[cluster]
	rows := c.rows[r]
	if !ok || len(rows) == 0 {
		return nil, time.Time{}
	}
	return func(yield func(kvstore.KV) bool) {
		for _, kv := range rows {
			if !yield(kv) {
				return
			}
		}
	}, c.at
}

// Restore implements clustermesh.Kept: what a remote that is away has declared stays its own.
func (k *kept) Restore(cluster string, r schema.Resource) int {
	c, _ := k.cluster(cluster)
	scope := schema.Scope{Cluster: cluster, ClusterID: c.id, MaxClusters: k.cfg.MaxClusters, Cached: true}
	k.mu.Lock()
	rows := c.rows[r]
	k.mu.Unlock()
	switch r {
	case schema.ResourceNodes:
		return restore(k.tables.Nodes, schema.Nodes(scope), cluster, rows, c.at)
	case schema.ResourceIPs:
		return restore(k.tables.IPs, schema.IPs(scope), cluster, rows, c.at)
	case schema.ResourceIdentities:
		return restore(k.tables.Identities, schema.Identities(scope), cluster, rows, c.at)
	case schema.ResourceServices:
		return restore(k.tables.Services, schema.Services(scope), cluster, rows, c.at)
	}
	return 0
}

func restore[K comparable, V any](to *state.Table[K, V], codec schema.Codec[K, V], cluster string, rows []kvstore.KV, at time.Time) (put int) {
	source := clustermesh.SourceOf(cluster)
	to.Update(func(w *state.Writer[K, V]) {
		for _, kv := range rows {
			key, err := codec.ParseKey(kv.Key)
			if err != nil {
				continue
			}
			if v, err := codec.Decode(key, kv.Value); err == nil {
				w.Put(source, kv.ModRevision, key, v)
				put++
			}
		}
	})
	to.Confirm(source, at)
	return put
}

// Listed implements clustermesh.Kept.
func (k *kept) Listed(cluster string, r schema.Resource, _ bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c, ok := k.clusters[cluster]; ok {
		delete(c.rows, r)
	}
}
