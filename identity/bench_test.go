// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// each calls f with the numbers 0 to n-1 from 16 goroutines.
func each(b *testing.B, n int, f func(i int) error) {
	b.Helper()
	var g errgroup.Group
	var next atomic.Int64
	for range 16 {
		g.Go(func() error {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if err := f(int(i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkAllocate is row C8: distinct sets at concurrency 16, as a ratio to transactions of two
// puts on the same store, taken in turns; and the collection of what was allocated. The ratio is
// that of the medians of the slices.
func BenchmarkAllocate(b *testing.B) {
	s := kvstoretest.Start(b, kvstoretest.Options{})
	a := start(b, s, "172.16.0.1")
	ctx := context.Background()
	g := newGC(b, a.client, GCConfig{})
	const slice = 2000
	var raw, allocate, collect []float64
	total := 0
	rateOf := func(f func()) float64 {
		began := time.Now()
		f()
		return slice / time.Since(began).Seconds()
	}
	for b.Loop() {
		base := total
		total += slice
		raw = append(raw, rateOf(func() {
			each(b, slice, func(i int) error {
				_, err := a.client.Txn(ctx).Then(
					clientv3.OpPut(fmt.Sprintf("raw/id/%d", base+i), set(fmt.Sprint(i)).String()),
					clientv3.OpPut(fmt.Sprintf("raw/value/%d", base+i), "200000"),
				).Commit()
				return err
			})
		}))
		allocate = append(allocate, rateOf(func() {
			each(b, slice, func(i int) error {
				_, err := a.Allocate(ctx, set(fmt.Sprint(base+i)))
				return err
			})
		}))
		for i := range slice {
			a.Release(set(fmt.Sprint(base + i)))
		}
		eventually(b, "released", func() bool {
			a.mu.Lock()
			defer a.mu.Unlock()
			return len(a.uses) == 0
		})
		round(b, g)
		collect = append(collect, rateOf(func() { round(b, g) }))
	}
	if st := g.Stats(); st.Removed != uint64(total) {
		b.Errorf("removed %d of %d", st.Removed, total)
	}
	b.ReportMetric(median(raw), "raw-txn/s")
	b.ReportMetric(median(allocate), "allocations/s")
	b.ReportMetric(median(allocate)/median(raw), "C8-ratio")
	b.ReportMetric(median(collect)/median(allocate), "C8-gc-ratio")
}

// BenchmarkRepublish is the time from a store's return without anything until it holds 10,000 sets
// of one node again, at their old numbers, and the rate of that.
func BenchmarkRepublish(b *testing.B) {
	s := kvstoretest.Start(b, kvstoretest.Options{})
	a := start(b, s, "172.16.0.1")
	const sets = 10_000
	each(b, sets, func(i int) error {
		_, err := a.Allocate(context.Background(), set(fmt.Sprint(i)))
		return err
	})
	var took []float64
	for b.Loop() {
		before := a.Stats().Recreated
		s.Wipe()
		began := time.Now()
		kvstoretest.Eventually(b, func() string {
			if again := a.Stats().Recreated - before; again < sets {
				return fmt.Sprintf("%d sets of %d are back", again, sets)
			}
			return ""
		})
		took = append(took, time.Since(began).Seconds())
	}
	if st := a.Stats(); st.Renumbered != 0 {
		b.Errorf("got %+v", st)
	}
	b.ReportMetric(median(took), "s/10k-sets")
	b.ReportMetric(sets/median(took), "sets/s")
}

func median(xs []float64) float64 {
	ys := append([]float64{}, xs...)
	for i := range ys {
		for j := i; j > 0 && ys[j] < ys[j-1]; j-- {
			ys[j], ys[j-1] = ys[j-1], ys[j]
		}
	}
	return ys[len(ys)/2]
}
