// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/state"
)

// nodeOf is the derivation of the example: pure, and tested without a loop.
func nodeOf(node string) string { return "tunnel to " + node }

// prints is an Ops that says what it is asked for.
type prints struct{}

func (prints) Update(_ context.Context, rows []state.Row[netip.Addr, string]) map[netip.Addr]error {
	for _, r := range rows {
		fmt.Println("update", r.Key, r.Value)
	}
	return nil
}

func (prints) Delete(_ context.Context, keys []netip.Addr) map[netip.Addr]error {
	fmt.Println("delete", keys)
	return nil
}

func (prints) Prune(_ context.Context, want func(netip.Addr) (string, bool)) error {
	for _, leftover := range []string{"10.0.0.1", "10.0.0.9"} {
		if _, ok := want(netip.MustParseAddr(leftover)); !ok {
			fmt.Println("prune", leftover)
		}
	}
	return nil
}

// The whole way: a source writes a table, a derivation another, a reconciler applies that.
func Example() {
	ips := state.NewTable[netip.Addr]("ips", state.Equal[string])
	entries := state.NewTable[netip.Addr]("entries", state.Equal[string])
	reconciler := state.NewReconciler(state.ReconcilerConfig{Name: "ipcache"}, entries, prints{}, nil)

	ctx, cancel := context.WithCancel(context.Background())
	ends := make(chan error, 2)
	cursor := ips.Cursor()
	defer cursor.Close()
	go func() {
		ends <- state.Derive(ctx, entries, "derived", func() error {
			changes := cursor.Next(1000)
			entries.Update(func(w *state.Writer[netip.Addr, string]) {
				for _, c := range changes {
					if c.Deleted {
						w.Delete("derived", c.Origin, c.Key)
					} else {
						w.Put("derived", c.Origin, c.Key, nodeOf(c.Value))
					}
				}
			})
			return nil
		}, cursor)
	}()
	go func() { ends <- reconciler.Run(ctx) }()

	ips.Put("cluster/b", 17, netip.MustParseAddr("10.0.0.1"), "b1")
	ips.MarkSynced("cluster/b")
	if err := reconciler.WaitPruned(ctx); err != nil {
		fmt.Println(err)
	}
	fmt.Println(slices.Collect(entries.All())[0].Origin)
	cancel()
	fmt.Println(<-ends, <-ends)

	// Output:
	// update 10.0.0.1 tunnel to b1
	// prune 10.0.0.9
	// 17
	// <nil> <nil>
}
