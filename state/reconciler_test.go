// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// reconcile runs a reconciler of table on o until the returned function is called.
func reconcile(t *testing.T, cfg ReconcilerConfig, table *Table[string, int], o *outside) (r *Reconciler[string, int], stop func()) {
	t.Helper()
	r = NewReconciler(cfg, table, o, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return r, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func want(t *testing.T, o *outside, rows map[string]int) {
	t.Helper()
	if diff := cmp.Diff(rows, o.has()); diff != "" {
		t.Fatalf("outside (-want +got):\n%s", diff)
	}
}

func TestReconciler_AppliesChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := NewTable[string]("test", Equal[int])
		o := newOutside()
		r, stop := reconcile(t, ReconcilerConfig{BatchSize: 2}, table, o)
		defer stop()
		table.Update(func(w *Writer[string, int]) {
			for i, k := range []string{"a", "b", "c"} {
				w.Put("s", 0, k, i)
			}
		})
		if err := r.WaitDone(t.Context(), table.Revision()); err != nil {
			t.Fatal(err)
		}
		want(t, o, map[string]int{"a": 0, "b": 1, "c": 2})
		if diff := cmp.Diff([]string{"update a b", "update c"}, o.took()); diff != "" {
			t.Fatalf("calls (-want +got):\n%s", diff)
		}
		table.Put("s", 0, "b", 1) // equal: nothing to do
		table.Put("s", 0, "c", 7)
		table.Delete("s", 0, "a")
		if err := r.WaitDone(t.Context(), table.Revision()); err != nil {
			t.Fatal(err)
		}
		want(t, o, map[string]int{"b": 1, "c": 7})
		got, ok := r.Outcome("c")
		if diff := cmp.Diff(Outcome{Revision: 4, Done: true, At: time.Now()}, got, cmpopts.EquateApproxTime(0)); !ok || diff != "" {
			t.Fatalf("outcome (-want +got):\n%s", diff)
		}
		if _, ok := r.Outcome("a"); ok {
			t.Fatal("an outcome of a row that is gone")
		}
	})
}

func TestReconciler_FailedItemHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := NewTable[string]("test", Equal[int])
		o := newOutside()
		o.refuse["bad"] = true
		r, stop := reconcile(t, ReconcilerConfig{MinBackoff: time.Second, MaxBackoff: 8 * time.Second}, table, o)
		defer stop()
		table.Put("s", 0, "bad", 1)
		table.Put("s", 0, "good", 1)
		synctest.Wait()
		want(t, o, map[string]int{"good": 1})
		if got, _ := r.Outcome("bad"); !errors.Is(got.Err, errRefused) || got.Done || got.Attempts != 1 {
			t.Fatalf("outcome = %+v", got)
		}

		// The attempts are at least half a backoff apart and at most a whole one.
		for attempt := 1; attempt < 8; attempt++ {
			before, _ := r.Outcome("bad")
			wait := before.Retry.Sub(before.At)
			full := min(time.Second<<(attempt-1), 8*time.Second)
			if wait < full/2 || wait > full {
				t.Fatalf("backoff %v after attempt %d, want %v to %v", wait, attempt, full/2, full)
			}
			time.Sleep(wait)
			synctest.Wait()
			if got, _ := r.Outcome("bad"); got.Attempts != attempt+1 {
				t.Fatalf("attempts = %d, want %d", got.Attempts, attempt+1)
			}
		}

		// A newer value is tried at once.
		o.set(func(o *outside) { o.refuse = nil })
		table.Put("s", 0, "bad", 2)
		synctest.Wait()
		want(t, o, map[string]int{"good": 1, "bad": 2})
		if got, _ := r.Outcome("bad"); !got.Done || got.Err != nil || got.Attempts != 0 {
			t.Fatalf("outcome = %+v", got)
		}
		if s := r.Status(); s.Failed != 0 || s.Err != nil {
			t.Fatalf("status = %+v", s)
		}
	})
}

func TestReconciler_FailedDeletionIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := NewTable[string]("test", Equal[int])
		o := newOutside()
		r, stop := reconcile(t, ReconcilerConfig{}, table, o)
		defer stop()
		table.Put("s", 0, "a", 1)
		table.Put("s", 0, "b", 1)
		synctest.Wait()
		o.set(func(o *outside) { o.refuse["a"], o.refuse["b"] = true, true })
		table.Delete("s", 0, "a")
		table.Delete("s", 0, "b")
		synctest.Wait()
		got := maps.Collect(r.Outcomes())
		diff := cmp.Diff(map[string]Outcome{
			"a": {Revision: 3, Deleted: true, Err: errRefused, Attempts: 1},
			"b": {Revision: 4, Deleted: true, Err: errRefused, Attempts: 1},
		}, got, cmpopts.EquateErrors(), cmpopts.IgnoreFields(Outcome{}, "At", "Retry"))
		if diff != "" {
			t.Fatalf("outcomes (-want +got):\n%s", diff)
		}
		o.set(func(o *outside) { o.refuse = nil })
		table.Put("s", 0, "b", 2) // put again before the deletion succeeded
		if err := r.WaitDone(t.Context(), table.Revision()); err != nil {
			t.Fatal(err)
		}
		want(t, o, map[string]int{"b": 2})
	})
}

func TestReconciler_PrunesOnlyWhenSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := NewTable[string]("test", Equal[int])
		table.Expect("s", "late")
		o := newOutside()
		o.rows = map[string]int{"left": 1, "kept": 1}
		r, stop := reconcile(t, ReconcilerConfig{}, table, o)
		defer stop()
		table.Put("s", 0, "kept", 1)
		table.MarkSynced("s")
		time.Sleep(time.Hour)
		synctest.Wait()
		want(t, o, map[string]int{"left": 1, "kept": 1})

		o.set(func(o *outside) { o.noPrune = true })
		table.MarkSynced("late")
		synctest.Wait()
		if s := r.Status(); !errors.Is(s.PruneErr, errRefused) {
			t.Fatalf("status = %+v", s)
		}
		o.set(func(o *outside) { o.noPrune = false })
		if err := r.WaitPruned(t.Context()); err != nil {
			t.Fatal(err)
		}
		want(t, o, map[string]int{"kept": 1})
		if s := r.Status(); s.PruneErr != nil || s.Pruned.IsZero() {
			t.Fatalf("status = %+v", s)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if o.prunes != 1 {
			t.Fatalf("pruned %d times", o.prunes)
		}
	})
}

func TestReconciler_RefreshRepairs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := NewTable[string]("test", Equal[int])
		o := newOutside()
		r, stop := reconcile(t, ReconcilerConfig{RefreshInterval: time.Minute, BatchSize: 3}, table, o)
		defer stop()
		rows := map[string]int{}
		for i := range 10 {
			rows[fmt.Sprint(i)] = i
			table.Put("s", 0, fmt.Sprint(i), i)
		}
		table.MarkSynced("s")
		if err := r.WaitPruned(t.Context()); err != nil {
			t.Fatal(err)
		}
		o.set(func(o *outside) {
			delete(o.rows, "3")
			o.rows["4"] = 44
			o.rows["foreign"] = 1
		})
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if o.has()["4"] != 44 {
			t.Fatal("refreshed early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		want(t, o, rows)
	})
}

func TestReconciler_ShutdownWaitsForTheOperation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := NewTable[string]("test", Equal[int])
		o := newOutside()
		o.enter, o.leave = make(chan struct{}), make(chan struct{})
		r := NewReconciler(ReconcilerConfig{}, table, o, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		table.Put("s", 0, "a", 1)
		<-o.enter
		cancel()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("Run returned during an operation")
		default:
		}
		close(o.leave)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got, _ := r.Outcome("a"); !got.Done {
			t.Fatalf("the outcome of the last operation is lost: %+v", got)
		}
		if len(table.cursors) != 0 {
			t.Fatal("the cursor is left open")
		}
	})
}

func TestReconciler_WaitDoneSaysWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := NewTable[string]("test", Equal[int])
		o := newOutside()
		o.refuse["bad"] = true
		r, stop := reconcile(t, ReconcilerConfig{Name: "ipcache"}, table, o)
		defer stop()
		table.Put("s", 0, "bad", 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := r.WaitDone(ctx, 1)
		if !errors.Is(err, errRefused) || !strings.HasPrefix(err.Error(), "ipcache: revision 1: ") {
			t.Fatalf("error = %v", err)
		}
	})
}

func TestReconciler_RowThatCameAndWentIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := NewTable[string]("test", Equal[int])
		o := newOutside()
		r, stop := reconcile(t, ReconcilerConfig{}, table, o)
		defer stop()
		table.Put("s", 0, "a", 1)
		synctest.Wait()
		table.Update(func(w *Writer[string, int]) {
			w.Put("s", 0, "short", 1)
			w.Delete("s", 0, "short")
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := r.WaitDone(ctx, table.Revision()); err != nil {
			t.Fatal(err)
		}
	})
}

// A refresh meets a row that the cursor has not delivered, and the row goes before it does: then no
// deletion comes, so the refresh must not have applied it.
func TestReconciler_RefreshLeavesNewRowsToTheCursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := NewTable[string]("test", Equal[int])
		o := newOutside()
		o.before = func(rows []Row[string, int]) {
			if len(rows) == 1 && rows[0].Key == "slow" {
				time.Sleep(2 * time.Second) // the refresh is due when this returns
				table.Put("s", 0, "new", 1)
			} else {
				table.Delete("s", 0, "new")
			}
		}
		_, stop := reconcile(t, ReconcilerConfig{RefreshInterval: time.Minute}, table, o)
		defer stop()
		table.Put("s", 0, "old", 1)
		time.Sleep(59 * time.Second)
		table.Put("s", 0, "slow", 1)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if table.Len() != 2 {
			t.Fatal("the refresh did not run")
		}
		want(t, o, map[string]int{"old": 1, "slow": 1})
	})
}

// TestReconciler_Converges: whatever happens to table and outside meanwhile, in the end they are equal.
func TestReconciler_Converges(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			table := NewTable[string]("test", Equal[int])
			o := newOutside()
			for i := range 10 {
				o.rows[fmt.Sprint(i*3)] = i
			}
			cfg := ReconcilerConfig{BatchSize: 1 + rnd.IntN(7), RefreshInterval: time.Duration(rnd.IntN(3)) * time.Second}
			r, stop := reconcile(t, cfg, table, o)
			for range 300 {
				k := fmt.Sprint(rnd.IntN(30))
				switch rnd.IntN(9) {
				case 0, 1, 2:
					table.Put("s", 0, k, rnd.IntN(3))
				case 3, 4:
					table.Delete("s", 0, k)
				case 5:
					o.set(func(o *outside) { o.refuse[k] = !o.refuse[k] })
				case 6:
					o.set(func(o *outside) { o.noPrune = !o.noPrune })
				case 7:
					table.MarkSynced("s")
				case 8:
					time.Sleep(time.Duration(rnd.IntN(300)) * time.Millisecond)
				}
				if rnd.IntN(10) == 0 { // somebody looks on
					for k, got := range r.Outcomes() {
						if got.Done && got.Err != nil {
							t.Fatalf("seed %d: outcome of %s = %+v", seed, k, got)
						}
					}
				}
				if rnd.IntN(50) == 0 {
					stop()
					r, stop = reconcile(t, cfg, table, o)
				}
			}
			o.set(func(o *outside) { o.refuse, o.noPrune = nil, false })
			table.MarkSynced("s")
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			rows := map[string]int{}
			for row := range table.All() {
				rows[row.Key] = row.Value
				if got, ok := r.Outcome(row.Key); !ok || !got.Done || got.Revision != row.Revision {
					t.Fatalf("seed %d: outcome of %s = %+v", seed, row.Key, got)
				}
			}
			want(t, o, rows)
			stop()
		})
	}
}
