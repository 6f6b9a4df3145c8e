// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// lineageGoal: all watches of an agent know that they missed nothing after at most that many times
// what it takes to resume as many bare streams, which know nothing of the kind, and hear from each.
const lineageGoal = 1.25

// askAgain is how often a stream that was resumed asks how far it is: as ours do.
const askAgain = 100 * time.Millisecond

// lineagePrefixes are what an agent and its guard follow.
func lineagePrefixes() []string {
	return []string{
		schema.Nodes(scope()).Prefix, schema.IPs(scope()).Prefix, schema.Identities(scope()).Prefix,
		schema.Endpoints(scope()).Prefix, schema.Definitions().Prefix,
		schema.HeartbeatReadPrefix, schema.EpochKey, schema.OwnersPrefix, schema.DecisionKey,
	}
}

// returning is the benchmark of lineage checks: the watches of an agent, over a store with all rows,
// that lose their connection and get it back while nothing happened.
type returning struct {
	store    *store
	floor    *kvstore.Client
	revision int64 // of the store, which is written no more
	watches  []func() kvstore.WatchStatus
}

// measureLineage is the row "lineage".
func measureLineage(ctx context.Context, cfg Config) (_ []Line, err error) {
	r := &returning{}
	if r.store, err = startStore(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.store.stop()) }()
	stop, err := r.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	all, err := measureBeside(ctx, cfg, "lineage", func() (sample, error) { return r.returned(ctx, "ours", r.resumed(ctx)) },
		func() (sample, error) { return r.returned(ctx, "floor", func() error { return r.streams(ctx) }) })
	if err != nil {
		return nil, err
	}
	return []Line{besideLine("lineage", fmt.Sprintf("a reconnect: %d bare streams resumed / %d watches that know they missed nothing",
		len(lineagePrefixes()), len(lineagePrefixes())), lineageGoal, all)}, nil
}

// begin fills the store and starts the watches.
func (r *returning) begin(ctx context.Context) (stop func() error, err error) {
	direct, err := r.store.client(r.store.URL)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(setUp(ctx, direct), fillIPs(ctx, direct)); err != nil {
		return nil, err
	}
	last, err := direct.Etcd().Get(ctx, schema.EpochKey)
	if err != nil {
		return nil, err
	}
	r.revision = last.Header.Revision
	if r.floor, err = r.store.client(r.store.Floor); err != nil {
		return nil, err
	}
	client, err := r.store.client(r.store.Ours)
	if err != nil {
		return nil, err
	}
	quiet := slog.New(slog.DiscardHandler)
	guard := kvstore.NewGuard(client, kvstore.GuardConfig{Cluster: scope().Cluster, Owners: true}, quiet)
	wctx, cancel := context.WithCancel(ctx)
	g, wctx := errgroup.WithContext(wctx)
	g.Go(func() error { return guard.Run(wctx) })
	s := scope()
	r.watches = append(r.watches,
		startWatch(wctx, g, client, guard, schema.Nodes(s)), startWatch(wctx, g, client, guard, schema.IPs(s)),
		startWatch(wctx, g, client, guard, schema.Identities(s)), startWatch(wctx, g, client, guard, schema.Endpoints(s)),
		startWatch(wctx, g, client, guard, schema.Definitions()),
	)
	stop = func() error {
		cancel()
		return g.Wait()
	}
	if err := wait(ctx, "the watches", func() bool {
		for _, status := range r.watches {
			if st := status(); !st.Connected || !st.Synced {
				return false
			}
		}
		return true
	}); err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// startWatch starts one watch with a table of its own.
func startWatch[K comparable, V any](ctx context.Context, g *errgroup.Group, c *kvstore.Client, guard *kvstore.Guard,
	codec schema.Codec[K, V],
) func() kvstore.WatchStatus {
	table := state.NewTable[K](codec.Prefix, codec.Equal)
	w := kvstore.NewWatch(c, codec, table, kvstore.WatchConfig{Source: mirrorSource, Guard: guard}, slog.New(slog.DiscardHandler))
	g.Go(func() error { return w.Run(ctx) })
	return w.Status
}

// returned cuts a gate's clients off and lets them in again at once, and returns what it took from
// their first connection until done returns.
func (r *returning) returned(ctx context.Context, gate string, done func() error) (s sample, err error) {
	if _, err := r.store.ask("shut " + gate); err != nil {
		return s, err
	}
	if _, err := r.store.ask("open " + gate); err != nil {
		return s, err
	}
	cpu := ownCPU()
	if err := done(); err != nil {
		return s, err
	}
	end := time.Now()
	s.cpu = ownCPU() - cpu
	first, err := r.store.ask("first " + gate)
	s.wall = end.Sub(first)
	return s, err
}

// resumed returns what waits until every watch has resumed, or listed, once more than now.
func (r *returning) resumed(ctx context.Context) func() error {
	count := func(st kvstore.WatchStatus) uint64 { return st.Resumes + st.Lists }
	var before []uint64
	for _, status := range r.watches {
		before = append(before, count(status()))
	}
	return func() error {
		return wait(ctx, "the watches to resume", func() bool {
			for i, status := range r.watches {
				if st := status(); !st.Connected || count(st) == before[i] {
					return false
				}
			}
			return true
		})
	}
}

// streams opens a bare stream for each prefix and hears how far the store is.
func (r *returning) streams(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, convergeTimeout)
	defer cancel()
	for {
		if err := connected(ctx, r.floor.Etcd().ActiveConnection()); err != nil {
			return err
		}
		var g errgroup.Group
		for _, prefix := range lineagePrefixes() {
			g.Go(func() error { return bareStream(ctx, r.floor, prefix, r.revision) })
		}
		// What was cut may not have been noticed before.
		if err := g.Wait(); err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// connected waits for a connection.
func connected(ctx context.Context, conn *grpc.ClientConn) error {
	for s := conn.GetState(); s != connectivity.Ready; s = conn.GetState() {
		conn.Connect()
		if !conn.WaitForStateChange(ctx, s) {
			return ctx.Err()
		}
	}
	return nil
}

// bareStream resumes a watch at a revision, and asks for progress until it hears of some. The store
// itself takes up to 100 ms for that: so often it looks after watches that may have missed something.
func bareStream(ctx context.Context, c *kvstore.Client, prefix string, revision int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := pb.NewWatchClient(c.Etcd().ActiveConnection()).Watch(ctx)
	if err != nil {
		return err
	}
	err = s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte(prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(prefix)), StartRevision: revision,
	}}})
	if err != nil {
		return err
	}
	if _, err := s.Recv(); err != nil { // that it was made
		return err
	}
	// A question about progress that comes before that is left unanswered.
	ask := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
	var g errgroup.Group
	heard, done := context.WithCancel(ctx)
	g.Go(func() error {
		tick := time.NewTicker(askAgain)
		defer tick.Stop()
		for {
			if err := s.Send(ask); err != nil {
				return nil // the other side says why
			}
			select {
			case <-tick.C:
			case <-heard.Done():
				return nil
			}
		}
	})
	_, err = s.Recv()
	done()
	return errors.Join(err, g.Wait())
}
