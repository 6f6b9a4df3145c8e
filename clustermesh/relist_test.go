// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestRelisting_RestsByWhatListsAreWorth: lists that repair rows come at the least time, lists that do
// not become rarer, and one that does makes them frequent again.
func TestRelisting_RestsByWhatListsAreWorth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelisting(time.Second)
		var refused atomic.Int64
		var helps atomic.Bool
		var at []time.Duration // written while the test sleeps
		begin := time.Now()
		faults := func() int { return int(refused.Load()) }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- r.run(ctx, faults, func() {
				at = append(at, time.Since(begin))
				if helps.Load() {
					refused.Add(-1)
				}
			})
		}()
		want := func(when string, lists ...time.Duration) {
			t.Helper()
			synctest.Wait()
			if d := cmp.Diff(lists, at); d != "" {
				t.Fatalf("%s: lists (-want +got):\n%s", when, d)
			}
			at = nil
		}
		ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
		r.ask(faults)
		want("nothing is refused")

		helps.Store(true)
		for range 3 { // one row after the other is refused and repaired
			refused.Add(1)
			r.ask(faults)
			time.Sleep(ms(1001))
		}
		want("each list helps", 0, ms(1001), ms(2002))

		helps.Store(false)
		refused.Store(1)
		for range 11 { // until 8,503 ms; the rests are 2 s and 4 s
			r.ask(faults)
			time.Sleep(ms(500))
		}
		want("no list helps", ms(3003), ms(5003))

		helps.Store(true)
		refused.Store(5)
		time.Sleep(ms(1000))
		r.ask(faults)
		time.Sleep(ms(1000))
		want("one helps again", ms(9003), ms(10003))
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}
