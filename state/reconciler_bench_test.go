// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
)

// nowhere is an Ops that has nothing to do.
type nowhere struct{}

func (nowhere) Update(context.Context, []Row[netip.Addr, entry]) map[netip.Addr]error { return nil }

func (nowhere) Delete(context.Context, []netip.Addr) map[netip.Addr]error { return nil }

func (nowhere) Prune(context.Context, func(netip.Addr) (entry, bool)) error { return nil }

// BenchmarkReconciler is what the reconciler itself costs: the time until a full table is applied
// by an Ops that does nothing, the heap its outcomes take, and one change through a full table.
func BenchmarkReconciler(b *testing.B) {
	for _, n := range sizes() {
		b.Run(fmt.Sprintf("%d/all", n), func(b *testing.B) {
			var kept int64
			for b.Loop() {
				table := filled(n)
				before := heapBytes()
				r, stop := reconcileNowhere(b, table)
				kept = heapBytes() - before
				stop()
				runtime.KeepAlive(r)
			}
			b.ReportMetric(float64(kept)/float64(n), "B/row")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/row")
		})
		b.Run(fmt.Sprintf("%d/one", n), func(b *testing.B) {
			b.ReportAllocs()
			table := filled(n)
			r, stop := reconcileNowhere(b, table)
			defer stop()
			for i := 0; b.Loop(); i++ {
				table.Put("cluster/b", 0, address(i*7919%n), entry{identity: uint32(i), bits: 1})
				if err := r.WaitDone(b.Context(), table.Revision()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// reconcileNowhere returns when everything is applied.
func reconcileNowhere(b *testing.B, table *Table[netip.Addr, entry]) (*Reconciler[netip.Addr, entry], func()) {
	r := NewReconciler(ReconcilerConfig{}, table, nowhere{}, nil)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	if err := r.WaitDone(b.Context(), table.Revision()); err != nil {
		b.Fatal(err)
	}
	return r, func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
}
