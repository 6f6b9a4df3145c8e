// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package operator does what a cluster needs done once: it keeps the heartbeat and the
// cluster-config that other clusters read, publishes the global services, collects identity numbers
// that nobody uses, compacts the store where nobody else does, and keeps a copy of the rows of the
// cluster to put them back into a store that lost them. Several operators may run; one leads.
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
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/identity"
	"github.com/weft-net/weft/kvstore"
)

// Operator is one candidate for the once-per-cluster work.
type Operator struct {
	cfg     Config
	log     *slog.Logger
	client  *kvstore.Client
	admin   *kvstore.Client // for compaction and defragmentation
	metrics *metrics
	keeper  *keeper
	mirror  *mirror
}

// New returns an operator on the cluster's store; admin is a client of the same store that may compact
// and defragment, nil if that is client. It touches nothing.
func New(cfg Config, client, admin *kvstore.Client, reg prometheus.Registerer, log *slog.Logger) (*Operator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	m, err := newMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	if admin == nil {
		admin = client
	}
	o := &Operator{
		cfg: cfg, log: log, client: client, admin: admin, metrics: m,
		keeper: newKeeper(cfg, client, m, log), mirror: newMirror(cfg, client, log),
	}
	o.keeper.guard = o.mirror.guard.Status
	return o, nil
}

// Run waits to be elected and then leads, again and again, until ctx ends.
func (o *Operator) Run(ctx context.Context) error {
	o.keeper.load()
	o.mirror.restore(o.keeper.mem)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return o.mirror.Run(ctx, o.keeper.nudge) })
	g.Go(func() error { return o.keeper.Run(ctx) })
	g.Go(func() error { return o.candidacies(ctx) })
	return g.Wait()
}

// candidacies makes this operator a candidate, again and again.
func (o *Operator) candidacies(ctx context.Context) error {
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
			return o.lead(ctx, session)
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

// lead does the work until ctx ends, which is when the leadership does. The store is recognised
// before anything is written to it: the first heartbeat would hide that an old one came back.
func (o *Operator) lead(ctx context.Context, session *kvstore.Session) error {
	lease, _ := session.Current()
	fence, err := newFence(ctx, o.client, lease.ID)
	if err != nil {
		return err
	}
	o.keeper.lead(&fence)
	defer o.keeper.lead(nil)
	if err := o.keeper.turn(ctx); err != nil {
		return fmt.Errorf("recognise the store: %w", err)
	}
	o.log.Info("leading", "name", o.cfg.Name)
	o.metrics.leader.Set(1)
	var others *remotes
	var away func() bool
	if o.cfg.MeshDir != "" {
		others = &remotes{dir: o.cfg.MeshDir, own: o.cfg.Cluster, log: o.log}
		away = func() bool { return others.away(time.Now()) }
	}
	works := map[string]func(context.Context) error{
		"heartbeat":      func(ctx context.Context) error { return o.heartbeat(ctx, fence) },
		"cluster-config": func(ctx context.Context) error { return o.publishConfig(ctx, fence) },
		// What the guard holds is in the mirror, so exports go on; what the keeper holds may be missing.
		"services": func(ctx context.Context) error {
			return gated(ctx, newExporter(o.cfg, o.client, o.mirror, fence, o.keeper.check, o.log).Run, o.keeper.hold)
		},
		"identity gc": o.unlessHeld(func(ctx context.Context) error { return o.collect(ctx, fence, away) }),
		"compaction": func(ctx context.Context) error {
			c := &compactor{client: o.client, admin: o.admin, cfg: o.cfg, log: o.log, fence: fence, done: o.metrics.compacted}
			return gated(ctx, c.Run, o.keeper.hold)
		},
		"nodes that are gone": o.unlessHeld(func(ctx context.Context) error {
			r := &reaper{cfg: o.cfg, client: o.client, log: o.log, check: o.check, fence: fence, done: o.metrics.gone}
			return r.Run(ctx)
		}),
	}
	if others != nil {
		works["other clusters"] = others.Run
	}
	if o.cfg.Defragment {
		works["defragmentation"] = (&defragmenter{
			client: o.admin, log: o.log, fence: fence, last: o.metrics.defragged,
			every: defragEvery, smallest: defragSmallest, free: defragFree,
		}).Run
	}
	g, ctx := errgroup.WithContext(ctx)
	for what, run := range works {
		g.Go(func() error {
			if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("%s: %w", what, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// unlessHeld is work that prunes or collects, so it rests while the store may have lost rows.
func (o *Operator) unlessHeld(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error { return gated(ctx, run, o.keeper.hold, o.mirror.guard.Holding) }
}

// check looks at the store at once. An error means that nothing may be taken away now.
func (o *Operator) check(ctx context.Context) error {
	if err := o.keeper.check(ctx); err != nil {
		return err
	}
	if held, _ := o.mirror.guard.Holding(); held {
		return errHold
	}
	return nil
}

// holding tells whether the keeper or the guard holds, and when to ask again.
func (o *Operator) holding() (bool, <-chan struct{}) {
	if held, changed := o.keeper.hold(); held {
		return true, changed
	}
	return o.mirror.guard.Holding()
}

// collect removes identity numbers that nobody uses. A collection that begins anew after a hold
// knows no candidates of before it.
func (o *Operator) collect(ctx context.Context, f fence, away func() bool) error {
	gc, err := identity.NewGC(identity.GCConfig{
		Cluster: o.cfg.Cluster, ClusterID: o.cfg.ClusterID, MaxClusters: o.cfg.MaxClusters,
		Interval: o.cfg.IdentityGC, Holding: o.holding, Away: away, Fence: []clientv3.Cmp{f.holds()},
	}, o.client, o.log)
	if err != nil {
		return err
	}
	return every(ctx, o.cfg.IdentityGC, func() {
		err := o.check(ctx)
		if err == nil {
			err = gc.Round(ctx)
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, errHold) {
			o.log.Warn("identity collection was cut short", "reason", err.Error())
		}
	})
}
