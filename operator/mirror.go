// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// mirror is what exports are made of, read from the store whether this operator leads or not, and
// under a guard: endpoints that are missing because leases ended together, or because the store is
// another one, stay in it until their nodes have spoken. Nobody else puts the exports right again if
// they lose their backends.
type mirror struct {
	guard       *kvstore.Guard
	definitions *state.Table[schema.DefinitionKey, schema.Definition]
	endpoints   *state.Table[schema.EndpointKey, schema.Endpoint]
	nodes       *state.Table[schema.NodeKey, schema.Node]
	watched     *kvstore.Watch[schema.DefinitionKey, schema.Definition]
	runs        []func(context.Context) error
}

// fromStore is the source of the mirror's rows.
const fromStore state.Source = "etcd"

// lineageFile is where the guard remembers the store, in the state directory.
const lineageFile = "operator-lineage"

func newMirror(cfg Config, client *kvstore.Client, log *slog.Logger) *mirror {
	guard := kvstore.GuardConfig{Cluster: cfg.Cluster, Owners: true, Limit: holdLimit, Brief: holdBrief}
	if cfg.StateDir != "" {
		guard.File = filepath.Join(cfg.StateDir, lineageFile)
	}
	m := &mirror{
		guard:       kvstore.NewGuard(client, guard, log),
		definitions: state.NewTable[schema.DefinitionKey]("definitions", schema.Definition.Equal),
		endpoints:   state.NewTable[schema.EndpointKey]("endpoints", schema.Endpoint.Equal),
		nodes:       state.NewTable[schema.NodeKey]("nodes", schema.Node.Equal),
	}
	m.definitions.Expect(fromStore)
	m.endpoints.Expect(fromStore)
	watch := kvstore.WatchConfig{Source: fromStore, Guard: m.guard}
	m.watched = kvstore.NewWatch(client, schema.Definitions(), m.definitions, watch, log)
	m.runs = []func(context.Context) error{
		m.guard.Run, m.watched.Run,
		kvstore.NewWatch(client, schema.Nodes(cfg.scope()), m.nodes, watch, log).Run,
		kvstore.NewWatch(client, schema.Endpoints(cfg.scope()), m.endpoints, watch, log).Run,
	}
	return m
}

// restore gives the watches what an earlier life knew, before Run.
func (m *mirror) restore(mem memory) {
	m.watched.Restore(func(yield func(kvstore.KV) bool) {
		for key, value := range mem.Rows {
			if strings.HasPrefix(key, schema.DefinitionsPrefix) && !yield(kvstore.KV{Key: key, Value: value}) {
				return
			}
		}
	}, mem.Revision, mem.At)
}

// Run mirrors until ctx ends, and calls changed when definitions have changed.
func (m *mirror) Run(ctx context.Context, changed func()) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range append(m.runs, func(ctx context.Context) error { return m.tell(ctx, changed) }) {
		g.Go(func() error { return run(ctx) })
	}
	return g.Wait()
}

// tell calls changed after changes, ten times a second at most.
func (m *mirror) tell(ctx context.Context, changed func()) error {
	cursor := m.definitions.Cursor()
	defer cursor.Close()
	for {
		if err := cursor.Wait(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		for len(cursor.Next(batch)) > 0 {
		}
		changed()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}
