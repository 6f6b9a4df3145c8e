// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"errors"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/service"
	"github.com/weft-net/weft/state"
)

// exporter publishes the global services of the cluster for the others. Its rows carry no lease: an
// operator that is down withdraws no service. It is their one writer and prunes them.
type exporter struct {
	cfg         Config
	client      *kvstore.Client
	log         *slog.Logger
	guard       *kvstore.Guard
	fence       fence
	check       func(context.Context) error // nothing may be written when it fails
	definitions *state.Table[schema.DefinitionKey, schema.Definition]
	endpoints   *state.Table[schema.EndpointKey, schema.Endpoint]
	exports     *state.Table[schema.ServiceKey, schema.ClusterService]
}

// derived is the source of the exports.
const derived state.Source = "derived"

// batch is how many changes one round of the derivation takes.
const batch = 1000

func newExporter(cfg Config, client *kvstore.Client, m *mirror, f fence, check func(context.Context) error, log *slog.Logger) *exporter {
	return &exporter{
		cfg: cfg, client: client, guard: m.guard, fence: f, check: check, log: log,
		definitions: m.definitions, endpoints: m.endpoints,
		exports: state.NewTable[schema.ServiceKey]("exports", schema.ClusterService.Equal),
	}
}

// Run publishes until ctx ends. What the mirror holds is published on: nobody has taken it away.
func (e *exporter) Run(ctx context.Context) error {
	publish := kvstore.NewStore(e.client, nil, schema.Services(e.cfg.scope()), e.exports,
		kvstore.StoreConfig[schema.ServiceKey, schema.ClusterService]{
			Owns:    func(k schema.ServiceKey, _ schema.ClusterService) bool { return k.Cluster == e.cfg.Cluster },
			Enforce: true, Guard: e.guard, Fence: []clientv3.Cmp{e.fence.holds()},
			// Each is the row of another service: two that go in one revision are taken for a
			// deletion by hand.
			MaxOps: 1,
		}, e.log)
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{publish.Run, e.derive} {
		g.Go(func() error { return run(ctx) })
	}
	return g.Wait()
}

// derive turns definitions and endpoints into exports. Nothing is written before both are synced: a
// service seen without its endpoints would lose its backends in every other cluster.
func (e *exporter) derive(ctx context.Context) error {
	definitions, endpoints := e.definitions.Cursor(), e.endpoints.Cursor()
	defer definitions.Close()
	defer endpoints.Close()
	index := service.NewIndex(service.Config{Cluster: e.cfg.Cluster, ClusterID: e.cfg.ClusterID})
	waiting, complete := map[schema.DefinitionKey]bool{}, false
	return state.Derive(ctx, e.exports, derived, func() error {
		definitions.Feed(batch, index.SetDefinition, index.DeleteDefinition)
		endpoints.Feed(batch, index.SetEndpoint, index.DeleteEndpoint)
		for _, name := range index.Flush().Services {
			waiting[name] = true
		}
		complete = complete || definitions.Synced() && endpoints.Synced()
		if !complete {
			return nil
		}
		// What was read may be a store that lost its endpoints: then nothing of it is written, and
		// all is derived anew after the hold.
		if len(waiting) > 0 {
			if err := e.wait(ctx); err != nil {
				return err
			}
		}
		e.exports.Update(func(w *state.Writer[schema.ServiceKey, schema.ClusterService]) {
			for name := range waiting {
				key := schema.ServiceKey{Cluster: e.cfg.Cluster, Namespace: name.Namespace, Name: name.Name}
				if s, ok := index.Export(name); ok {
					w.Put(derived, 0, key, s)
				} else {
					w.Delete(derived, 0, key)
				}
			}
		})
		clear(waiting)
		return nil
	}, definitions, endpoints)
}

// wait returns once the store is known to be whole; a store that cannot be reached is asked again.
func (e *exporter) wait(ctx context.Context) error {
	for {
		err := e.check(ctx)
		if err == nil || errors.Is(err, errHold) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(e.cfg.Retry):
		}
	}
}
