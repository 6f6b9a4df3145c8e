// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// reseedGoal: rows are back in a store that was wiped after at most that many times what it takes to
// put them there in full transactions, without asking what stands there, and to see them.
const reseedGoal = 2

// reseeding is the benchmark of a store that comes back empty: a node that holds all its rows.
type reseeding struct {
	store  *store
	direct *kvstore.Client
	guard  *kvstore.Guard
	ips    *state.Table[schema.IPKey, schema.IP]
	watch  *kvstore.Watch[schema.IPKey, schema.IP]
	writes *kvstore.Store[schema.IPKey, schema.IP] // nil: nobody owns the rows
}

// measureReseed is the row "reseed": once by who was told to, once by the owner of the rows.
func measureReseed(ctx context.Context, cfg Config) ([]Line, error) {
	told, err := measureReseedBy(ctx, cfg, false)
	if err != nil {
		return nil, err
	}
	owner, err := measureReseedBy(ctx, cfg, true)
	if err != nil {
		return nil, err
	}
	return []Line{
		besideLine("reseed", fmt.Sprintf("%d bare puts seen / as many held rows written back by command", manyRows), reseedGoal, told),
		besideLine("reseed", fmt.Sprintf("%d bare puts seen / as many rows written back by their owner", manyRows), reseedGoal, owner),
	}, nil
}

func measureReseedBy(ctx context.Context, cfg Config, owner bool) (_ []beside, err error) {
	r := &reseeding{}
	if r.store, err = startStore(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.store.stop()) }()
	stop, err := r.begin(ctx, owner)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	what, ours := "reseed by command", r.byCommand
	if owner {
		what, ours = "reseed by the owner", r.byOwner
	}
	return measureBeside(ctx, cfg, what, func() (sample, error) { return ours(ctx) }, func() (sample, error) { return r.bare(ctx) })
}

// begin fills the store and starts a guarded watch, and, for an owner, what publishes the rows.
func (r *reseeding) begin(ctx context.Context, owner bool) (stop func() error, err error) {
	if r.direct, err = r.store.client(r.store.URL); err != nil {
		return nil, err
	}
	if err := errors.Join(setUp(ctx, r.direct), fillIPs(ctx, r.direct)); err != nil {
		return nil, err
	}
	client, err := r.store.client(r.store.Ours)
	if err != nil {
		return nil, err
	}
	quiet := slog.New(slog.DiscardHandler)
	r.guard = kvstore.NewGuard(client, kvstore.GuardConfig{Cluster: scope().Cluster, Owners: true}, quiet)
	r.ips = state.NewTable[schema.IPKey]("ips", state.Equal[schema.IP])
	r.watch = kvstore.NewWatch(client, schema.IPs(scope()), r.ips, kvstore.WatchConfig{Source: mirrorSource, Guard: r.guard}, quiet)
	parts := []func(context.Context) error{r.guard.Run, r.watch.Run}
	if owner {
		own := state.NewTable[schema.IPKey]("own ips", state.Equal[schema.IP])
		for i := range manyRows {
			own.Put(mirrorSource, 0, schema.IPKey{Cluster: scope().Cluster, Prefix: ipPrefix(i)}, ipValue(i, identityOf(i, 0)))
		}
		own.MarkSynced(mirrorSource)
		session := kvstore.NewSession(client, kvstore.SessionConfig{}, quiet)
		r.writes = kvstore.NewStore(client, session, schema.IPs(scope()), own, kvstore.StoreConfig[schema.IPKey, schema.IP]{Feed: r.watch}, quiet)
		parts = append(parts, session.Run, r.writes.Run)
	}
	ctx, cancel := context.WithCancel(ctx)
	g, gctx := errgroup.WithContext(ctx)
	for _, run := range parts {
		g.Go(func() error { return run(gctx) })
	}
	stop = func() error {
		cancel()
		if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}
	if err := wait(ctx, "the first rows", func() bool { return r.ips.Synced() && r.stored() }); err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// stored says whether all rows stand in the store and nothing is on its way.
func (r *reseeding) stored() bool {
	if r.writes == nil {
		return r.ips.Len() == manyRows
	}
	st := r.writes.Status()
	return st.Listed && st.Rows == manyRows && st.Pending == 0
}

// comeBackEmpty wipes the store behind the node's back.
func (r *reseeding) comeBackEmpty(ctx context.Context) error {
	if _, err := r.store.ask("shut ours"); err != nil {
		return err
	}
	if _, err := r.store.ask("wipe"); err != nil {
		return err
	}
	if err := wait(ctx, "the store", func() bool { return setUp(ctx, r.direct) == nil }); err != nil {
		return err
	}
	_, err := r.store.ask("open ours")
	return err
}

// byCommand has a node that holds all rows write them back.
func (r *reseeding) byCommand(ctx context.Context) (s sample, err error) {
	if err := r.comeBackEmpty(ctx); err != nil {
		return s, err
	}
	if err := wait(ctx, "the hold", func() bool { return r.guard.Status().Hold.Rows == manyRows && r.watch.Status().Connected }); err != nil {
		return s, err
	}
	s, err = timed(func() error {
		n, err := r.guard.Reseed(ctx)
		if err == nil && n != manyRows {
			err = fmt.Errorf("%d rows of %d were written", n, manyRows)
		}
		return err
	})
	if err != nil {
		return s, err
	}
	return s, wait(ctx, "the end of the hold", func() bool { return r.guard.Status().Hold.Rows == 0 })
}

// byOwner has the owner of the rows find out that they are gone, take a new lease and write them back:
// from its first connection on.
func (r *reseeding) byOwner(ctx context.Context) (s sample, err error) {
	if err := r.comeBackEmpty(ctx); err != nil {
		return s, err
	}
	cpu := ownCPU()
	prefix := schema.IPs(scope()).Prefix
	if err := r.counted(ctx, prefix); err != nil {
		return s, err
	}
	end := time.Now()
	s.cpu = ownCPU() - cpu
	first, err := r.store.ask("first ours")
	if err != nil {
		return s, err
	}
	s.wall = end.Sub(first)
	return s, wait(ctx, "the owner", r.stored)
}

// counted returns when the store has all rows. It counts seldom enough not to be a load.
func (r *reseeding) counted(ctx context.Context, prefix string) error {
	ctx, cancel := context.WithTimeout(ctx, convergeTimeout)
	defer cancel()
	for {
		resp, err := r.direct.Etcd().Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil || resp.Count >= manyRows {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d rows of %d are back: %w", resp.Count, manyRows, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// bare puts as many rows as there are under a prefix of its own, under a lease, until a bare watch has
// seen them.
func (r *reseeding) bare(ctx context.Context) (s sample, err error) {
	const prefix = "bare/"
	lease, err := r.direct.Etcd().Grant(ctx, 3600)
	if err != nil {
		return s, err
	}
	var rows []clientv3.Op
	for i := range manyRows {
		key, value, err := ipRow(i, identityOf(i, 0))
		if err != nil {
			return s, err
		}
		rows = append(rows, clientv3.OpPut(prefix+key, string(value), clientv3.WithLease(lease.ID)))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := r.direct.Etcd().Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-events
	return timed(func() error {
		if err := fill(ctx, r.direct, rows); err != nil {
			return err
		}
		for seen := 0; seen < len(rows); {
			resp, ok := <-events
			if !ok || resp.Err() != nil {
				return fmt.Errorf("the bare watch ended: %w", resp.Err())
			}
			seen += len(resp.Events)
		}
		return nil
	})
}
