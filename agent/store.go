// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"iter"
	"log/slog"
	"time"

	"github.com/weft-net/weft/agent/endpoint"
	"github.com/weft-net/weft/clustermesh"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// watches mirror our cluster's store into tables.
type watches struct {
	own         *clustermesh.OwnIPs // judges ips
	nodes       *kvstore.Watch[schema.NodeKey, schema.Node]
	ips         *kvstore.Watch[schema.IPKey, schema.IP]
	identities  *kvstore.Watch[schema.IdentityKey, string]
	endpoints   *kvstore.Watch[schema.EndpointKey, schema.Endpoint]
	definitions *kvstore.Watch[schema.DefinitionKey, schema.Definition]
}

func newWatches(c *kvstore.Client, guard *kvstore.Guard, cfg Config, t tables, own *clustermesh.OwnIPs, log *slog.Logger) watches {
	from := kvstore.WatchConfig{Source: etcd, Guard: guard}
	s := cfg.scope()
	return watches{
		own:         own,
		nodes:       kvstore.NewWatch(c, schema.Nodes(s), t.nodes, from, log.With("table", "nodes")),
		ips:         kvstore.NewWatch(c, own.Judged(schema.IPs(s)), t.ips, from, log.With("table", "ips")),
		identities:  kvstore.NewWatch(c, schema.Identities(s), t.identities, from, log.With("table", "identities")),
		endpoints:   kvstore.NewWatch(c, schema.Endpoints(s), t.endpoints, from, log.With("table", "endpoints")),
		definitions: kvstore.NewWatch(c, schema.Definitions(), t.definitions, from, log.With("table", "definitions")),
	}
}

func (w watches) parts() []part {
	ips := func(ctx context.Context) error { return w.own.Run(ctx, w.nodes.Listed(), w.ips) }
	return []part{
		{"watch nodes", w.nodes.Run}, {"watch ips", ips}, {"watch identities", w.identities.Run},
		{"watch endpoints", w.endpoints.Run}, {"watch definitions", w.definitions.Run},
	}
}

// keptWatch is a watch as checkpoints see it.
type keptWatch struct {
	prefix  string
	restore func(rows iter.Seq[kvstore.KV], revision int64, at time.Time) int
	listed  <-chan struct{}
}

func keptWatchOf[K comparable, V any](w *kvstore.Watch[K, V]) keptWatch {
	return keptWatch{w.Status().Prefix, w.Restore, w.Listed()}
}

// listed tells whether each has been listed, by which the guard has judged what store it is.
func (w watches) listed() bool {
	for _, k := range w.kept() {
		select {
		case <-k.listed:
		default:
			return false
		}
	}
	return true
}

// kept are the watches by the names of their tables.
func (w watches) kept() map[string]keptWatch {
	return map[string]keptWatch{
		"nodes": keptWatchOf(w.nodes), "ips": keptWatchOf(w.ips), "identities": keptWatchOf(w.identities),
		"endpoints": keptWatchOf(w.endpoints), "definitions": keptWatchOf(w.definitions),
	}
}

// namedWatch is the state of one watch.
type namedWatch struct {
	table  string
	status kvstore.WatchStatus
}

func (w watches) status() []namedWatch {
	return []namedWatch{
		{"nodes", w.nodes.Status()}, {"ips", w.ips.Status()}, {"identities", w.identities.Status()},
		{"endpoints", w.endpoints.Status()}, {"definitions", w.definitions.Status()},
	}
}

// stores publish what is this node's, under its lease.
type stores struct {
	tables    tables
	node      *kvstore.Store[schema.NodeKey, schema.Node]
	endpoints *kvstore.Store[schema.EndpointKey, schema.Endpoint]
}

func newStores(c *kvstore.Client, session *kvstore.Session, cfg Config, t tables, w watches, log *slog.Logger) stores {
	s := cfg.scope()
	self := schema.NodeKey{Cluster: cfg.Cluster, Name: cfg.Node}
	// An address is written and deleted together with its endpoint.
	ips := kvstore.NewCompanion(schema.IPs(s), endpoint.IPRows(cfg.Addresses[0]), endpoint.OwnsIP(cfg.Cluster, cfg.Node), w.ips)
	return stores{
		tables: t,
		node: kvstore.NewStore(c, session, schema.Nodes(s), t.publishedNode, kvstore.StoreConfig[schema.NodeKey, schema.Node]{
			Owns: func(k schema.NodeKey, _ schema.Node) bool { return k == self },
			Feed: w.nodes, Enforce: true,
		}, log.With("table", "nodes")),
		endpoints: kvstore.NewStore(c, session, schema.Endpoints(s), t.own.Published, kvstore.StoreConfig[schema.EndpointKey, schema.Endpoint]{
			Owns: func(k schema.EndpointKey, _ schema.Endpoint) bool { return k.Node == cfg.Node },
			Feed: w.endpoints, Companions: []kvstore.Companion[schema.EndpointKey, schema.Endpoint]{ips},
		}, log.With("table", "endpoints")),
	}
}

// announce puts this node's row.
func (s stores) announce(cfg Config) {
	s.tables.publishedNode.Put(endpoint.Local, 0, schema.NodeKey{Cluster: cfg.Cluster, Name: cfg.Node}, cfg.nodeRow())
	s.tables.publishedNode.MarkSynced(endpoint.Local)
}

func (s stores) parts() []part {
	return []part{{"publish node", s.node.Run}, {"publish endpoints", s.endpoints.Run}}
}

// namedStore is the state of one store.
type namedStore struct {
	table  string
	status kvstore.StoreStatus
}

func (s stores) status() []namedStore {
	return []namedStore{{"nodes", s.node.Status()}, {"endpoints", s.endpoints.Status()}}
}
