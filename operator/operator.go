// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package operator does what a cluster needs done once: it keeps the heartbeat and the
// cluster-config that other clusters read, publishes the global services, collects identity numbers
// that nobody uses, and compacts the store where nobody else does. Several operators may run; one
// leads.
//
// Packets never need it: without a leader the other clusters see a frozen set of services with its
// age, and new services of the cluster itself work. It takes nothing away when it stops. It does not
// touch the kernel, and only cmd imports it.
package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/identity"
	"github.com/weft-net/weft/kvstore"
)

// Operator is one candidate for the once-per-cluster work.
type Operator struct {
	cfg     Config
	log     *slog.Logger
	client  *kvstore.Client
	metrics *metrics
}

// New returns an operator on the cluster's store. It touches nothing.
func New(cfg Config, client *kvstore.Client, reg prometheus.Registerer, log *slog.Logger) (*Operator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	m, err := newMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	return &Operator{cfg: cfg, log: log, client: client, metrics: m}, nil
}

// Run waits to be elected and then leads, again and again, until ctx ends.
func (o *Operator) Run(ctx context.Context) error {
	for {
		err := o.stand(ctx)
		o.metrics.leader.Set(0)
		if ctx.Err() != nil {
			return nil
		}
		o.log.Warn("no candidate any more, will be again", "reason", errText(err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(o.cfg.Retry):
		}
	}
}

// stand makes this operator a candidate until ctx ends or its work breaks.
func (o *Operator) stand(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	session := kvstore.NewSession(o.client, kvstore.SessionConfig{TTL: o.cfg.LeaderTTL, Revoke: true}, o.log)
	elector := kvstore.NewElector(o.client, session, kvstore.ElectorConfig{Name: office, ID: o.cfg.Name}, o.log)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return session.Run(ctx) })
	g.Go(func() error {
		defer cancel()
		return elector.Run(ctx, func(ctx context.Context) error {
			defer o.metrics.leader.Set(0)
			return o.lead(ctx)
		})
	})
	return g.Wait()
}

// office is what the operators of a cluster are elected to.
const office = "operator"

func errText(err error) string {
	if err == nil {
		return "the leadership ended"
	}
	return err.Error()
}

// lead does the work until ctx ends, which is when the leadership does.
func (o *Operator) lead(ctx context.Context) error {
	o.log.Info("leading", "name", o.cfg.Name)
	o.metrics.leader.Set(1)
	gc, err := identity.NewGC(identity.GCConfig{
		Cluster: o.cfg.Cluster, ClusterID: o.cfg.ClusterID, MaxClusters: o.cfg.MaxClusters,
		Interval: o.cfg.IdentityGC,
	}, o.client, o.log)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for what, run := range map[string]func(context.Context) error{
		"heartbeat":      o.heartbeat,
		"cluster-config": o.publishConfig,
		"services":       newExporter(o.cfg, o.client, o.log).Run,
		"identity gc":    gc.Run,
		"compaction":     (&compactor{client: o.client, cfg: o.cfg, log: o.log, done: o.metrics.compacted}).Run,
	} {
		g.Go(func() error {
			if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("%s: %w", what, err)
			}
			return nil
		})
	}
	return g.Wait()
}
