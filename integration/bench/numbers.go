// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	labelsets "github.com/weft-net/weft/identity"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// Goals of C8: numbers are given out at that share of the rate of bare transactions, and collected at
// least as fast.
const (
	numbersGoal    = 0.6
	collectionGoal = 1.0
)

const (
	numbersAtOnce = 16
	numbersSlice  = 2000 // distinct sets of a rotation
)

// numbering is the benchmark of C8: one node that allocates, the collector, and a bare client.
type numbering struct {
	floor     *kvstore.Client
	allocator *labelsets.Allocator
	gc        *labelsets.GC
	raw       int // transactions of the bare client so far
	given     int // sets that were given numbers so far
	allocate  []float64
	collect   []float64 // seconds of each rotation
}

// measureNumbers is C8.
func measureNumbers(ctx context.Context, cfg Config) (_ []Line, err error) {
	s, err := startStore(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	n, stop, err := newNumbering(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	all, err := measureBeside(ctx, cfg, "C8", func() (sample, error) { return n.allocateAndCollect(ctx) },
		func() (sample, error) { return timed(func() error { return n.transactions(ctx) }) })
	if err != nil {
		return nil, err
	}
	if st := n.gc.Stats(); st.Removed != uint64(n.given) {
		return nil, fmt.Errorf("%d numbers were collected of %d", st.Removed, n.given)
	}
	numbers := besideLine("C8", fmt.Sprintf("identity numbers at concurrency %d / bare transactions of two puts", numbersAtOnce), 1/numbersGoal, all)
	collection := ratioLine("C8", "collection of numbers / their allocation", n.collect, n.allocate)
	collection.Goal, collection.Met = collectionGoal, collection.Ratio >= collectionGoal
	return []Line{numbers, collection}, nil
}

// newNumbering starts the node.
func newNumbering(ctx context.Context, s *store) (n *numbering, stop func() error, err error) {
	client, err := s.client(s.URL)
	if err != nil {
		return nil, nil, err
	}
	n = &numbering{}
	if n.floor, err = s.client(s.URL); err != nil {
		return nil, nil, err
	}
	quiet := slog.New(slog.DiscardHandler)
	known := state.NewTable[schema.IdentityKey]("identities", state.Equal[string])
	session := kvstore.NewSession(client, kvstore.SessionConfig{}, quiet)
	watch := kvstore.NewWatch(client, schema.Identities(scope()), known, kvstore.WatchConfig{Source: mirrorSource}, quiet)
	n.allocator, err = labelsets.NewAllocator(labelsets.Config{
		Cluster: scope().Cluster, ClusterID: scope().ClusterID, Node: netip.MustParseAddr("192.0.2.1"),
	}, client, session, known, quiet)
	if err != nil {
		return nil, nil, err
	}
	n.gc, err = labelsets.NewGC(labelsets.GCConfig{
		Cluster: scope().Cluster, ClusterID: scope().ClusterID, Rate: rate.Inf,
	}, client, quiet)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{session.Run, watch.Run, n.allocator.Run} {
		g.Go(func() error { return run(ctx) })
	}
	return n, func() error {
		cancel()
		if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}, nil
}

// transactions is the floor: two puts for each set, as new numbers need them.
func (n *numbering) transactions(ctx context.Context) error {
	base := n.raw
	n.raw += numbersSlice
	return atOnce(numbersAtOnce, numbersSlice, func(i int) error {
		text := labelSet(base + i).String()
		_, err := n.floor.Txn(ctx).Then(
			clientv3.OpPut(fmt.Sprintf("raw/id/%d", base+i), text),
			clientv3.OpPut("raw/value/"+text+"/192.0.2.1", "100000"),
		).Commit()
		return err
	})
}

// allocateAndCollect gives numbers to new sets, which is what it returns the time of, and then lets
// go of them and has them collected.
func (n *numbering) allocateAndCollect(ctx context.Context) (sample, error) {
	base := n.given
	n.given += numbersSlice
	s, err := timed(func() error {
		return atOnce(numbersAtOnce, numbersSlice, func(i int) error {
			_, err := n.allocator.Allocate(ctx, labelSet(base+i))
			return err
		})
	})
	if err != nil {
		return s, err
	}
	for i := range numbersSlice {
		n.allocator.Release(labelSet(base + i))
	}
	err = wait(ctx, "the references to be removed", func() bool {
		return n.allocator.Held().Len() == 0 && n.allocator.Stats().Pending == 0 && n.unreferenced(ctx)
	})
	if err != nil {
		return s, err
	}
	// It takes two rounds: a number must be without a reference in both.
	began := time.Now()
	for range 2 {
		if err := n.gc.Round(ctx); err != nil {
			return s, err
		}
	}
	n.collect = append(n.collect, time.Since(began).Seconds())
	n.allocate = append(n.allocate, s.wall.Seconds())
	return s, nil
}

// unreferenced says whether no reference is left in the store.
func (n *numbering) unreferenced(ctx context.Context) bool {
	resp, err := n.floor.Etcd().Get(ctx, schema.IdentityValuesPrefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	return err == nil && resp.Count == 0
}

// labelSet is the i-th set of labels.
func labelSet(i int) labelsets.Labels {
	return labelsets.NewLabels(
		labelsets.Label{Source: labelsets.SourceKubernetes, Key: "app", Value: fmt.Sprintf("app-%d", i)},
		labelsets.Label{Source: labelsets.SourceKubernetes, Key: labelsets.ClusterKey, Value: scope().Cluster},
		labelsets.Label{Source: labelsets.SourceKubernetes, Key: labelsets.NamespaceKey, Value: "default"},
	)
}
