// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// summary writes changes as "a=1@2" and "-a=1@3": key, value, revision.
func summary(changes []Change[string, int]) []string {
	var out []string
	for _, c := range changes {
		s := fmt.Sprintf("%s=%d@%d", c.Key, c.Value, c.Revision)
		if c.Deleted {
			s = "-" + s
		}
		out = append(out, s)
	}
	return out
}

func TestCursor_Next(t *testing.T) {
	tests := map[string]struct {
		before func(t *Table[string, int])
		after  func(t *Table[string, int])
		want   []string
	}{
		"rows-in-order-of-last-change": {
			after: func(t *Table[string, int]) {
				t.Put("s", 0, "a", 1)
				t.Put("s", 0, "b", 1)
				t.Put("s", 0, "a", 2)
			},
			want: []string{"b=1@2", "a=2@3"},
		},
		"equal-value-is-no-change": {
			before: func(t *Table[string, int]) { t.Put("s", 0, "a", 1) },
			after:  func(t *Table[string, int]) { t.Put("other", 9, "a", 1) },
		},
		"deletion-has-the-last-value": {
			before: func(t *Table[string, int]) { t.Put("s", 0, "a", 1) },
			after:  func(t *Table[string, int]) { t.Delete("s", 5, "a") },
			want:   []string{"-a=1@2"},
		},
		"deleted-and-put-again-is-an-update": {
			before: func(t *Table[string, int]) { t.Put("s", 0, "a", 1) },
			after: func(t *Table[string, int]) {
				t.Delete("s", 0, "a")
				t.Put("s", 0, "a", 3)
			},
			want: []string{"a=3@3"},
		},
		"deleted-twice-is-one-deletion": {
			before: func(t *Table[string, int]) { t.Put("s", 0, "a", 1) },
			after: func(t *Table[string, int]) {
				t.Delete("s", 0, "a")
				t.Put("s", 0, "a", 3)
				t.Delete("s", 0, "a")
			},
			want: []string{"-a=3@4"},
		},
		"came-and-went-unseen": {
			after: func(t *Table[string, int]) {
				t.Put("s", 0, "a", 1)
				t.Delete("s", 0, "a")
			},
		},
		"another-source-deletes-nothing": {
			before: func(t *Table[string, int]) { t.Put("s", 0, "a", 1) },
			after:  func(t *Table[string, int]) { t.Delete("other", 0, "a") },
		},
		"drop": {
			before: func(t *Table[string, int]) {
				t.Put("s", 0, "a", 1)
				t.Put("other", 0, "b", 1)
			},
			after: func(t *Table[string, int]) { t.Drop("s") },
			want:  []string{"-a=1@3"},
		},
		"replace": {
			before: func(t *Table[string, int]) {
				t.Put("s", 0, "a", 1)
				t.Put("s", 0, "b", 1)
				t.Put("other", 0, "c", 1)
			},
			after: func(t *Table[string, int]) {
				t.Replace("s", 7, func(yield func(string, Stamped[int]) bool) {
					_ = yield("b", Stamped[int]{Value: 1}) && yield("d", Stamped[int]{Value: 4, Origin: 3})
				})
			},
			want: []string{"d=4@4", "-a=1@5"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			table := NewTable[string]("test", Equal[int])
			c := table.Cursor()
			defer c.Close()
			if tt.before != nil {
				tt.before(table)
				c.Next(0)
			}
			tt.after(table)
			if diff := cmp.Diff(tt.want, summary(c.Next(0))); diff != "" {
				t.Fatalf("changes (-want +got):\n%s", diff)
			}
			if got := c.Next(0); got != nil {
				t.Fatalf("delivered twice: %v", got)
			}
			if table.rows.held != table.live {
				t.Fatalf("%d slots held for %d rows", table.rows.held, table.live)
			}
		})
	}
}

func TestRow_OriginAndTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := NewTable[string]("test", Equal[int])
		start := time.Now()
		table.Put("s", 3, "a", 1)
		time.Sleep(time.Minute)
		table.Put("other", 4, "a", 1) // confirms the row, changes nothing
		got, ok := table.Get("a")
		want := Row[string, int]{Key: "a", Value: 1, Source: "other", Origin: 4, Revision: 1, Changed: start}
		if diff := cmp.Diff(want, got); !ok || diff != "" {
			t.Fatalf("row (-want +got):\n%s", diff)
		}
		if _, ok := table.Get("b"); ok {
			t.Fatal("a row that is not there")
		}
	})
}

// A cursor that stands still costs a tombstone for each row it has been given, and nothing else.
func TestCursor_SlowOneCostsBoundedMemory(t *testing.T) {
	table := NewTable[int]("test", Equal[int])
	slow, fast := table.Cursor(), table.Cursor()
	defer fast.Close()
	for k := range 100 {
		table.Put("s", 0, k, 0)
	}
	slow.Next(0)
	for k := range 100_000 { // every key lives for a moment
		table.Put("s", 0, k, 1)
		fast.Next(0)
		table.Delete("s", 0, k)
		if k%10 == 0 {
			fast.Next(0)
		}
	}
	if n := table.rows.held - table.live; n > 100+10 {
		t.Fatalf("%d tombstones for 100 rows delivered", n)
	}
	if n := len(slow.Next(0)); n < 100 || n > 110 {
		t.Fatalf("%d changes, want the 100 deletions", n)
	}
	fast.Next(0)
	if n := table.rows.held; n != 0 {
		t.Fatalf("%d slots held by an empty table", n)
	}

	for k := range 100 {
		table.Put("s", 0, k, 0)
	}
	slow.Next(0)
	table.Drop("s")
	fast.Next(0)
	if table.rows.held != 100 {
		t.Fatalf("%d tombstones, want 100", table.rows.held)
	}
	slow.Close()
	slow.Close()
	if table.rows.held != 0 {
		t.Fatalf("%d tombstones left behind a closed cursor", table.rows.held)
	}
}

func TestTable_GivesMemoryBack(t *testing.T) {
	table := NewTable[int]("test", Equal[int])
	r := NewReconciler(ReconcilerConfig{}, table, nil, nil)
	c := table.Cursor()
	defer c.Close()
	const n = 20_000
	table.Update(func(w *Writer[int, int]) {
		for k := range n {
			w.Put("a", 0, k, k)
		}
		for k := n; k < n+100; k++ {
			w.Put("b", 0, k, k)
		}
	})
	c.Next(n + 50)
	row, _ := table.Get(n + 7)
	table.setDone(r.done, []Row[int, int]{row}, nil, time.Now())

	for range table.All() { // nothing moves under a walk
		table.Drop("a")
		c.Next(n) // lets go of the tombstones
		if len(table.rows.chunks) < n/chunkSlots {
			t.Fatal("rows moved during a walk")
		}
		break
	}
	for len(c.Next(1000)) > 0 {
	}
	if got := len(table.rows.chunks); got != 1 {
		t.Fatalf("%d chunks for 100 rows", got)
	}
	for k := n; k < n+100; k++ {
		if row, ok := table.Get(k); !ok || row.Value != k || row.Source != "b" {
			t.Fatalf("row %d = %+v, %v", k, row, ok)
		}
	}
	if o, _ := r.Outcome(n + 7); !o.Done {
		t.Fatalf("outcome lost: %+v", o)
	}
	if o, _ := r.Outcome(n + 8); o.Done {
		t.Fatalf("outcome out of nothing: %+v", o)
	}
	table.Put("b", 0, n, 1)
	if got := c.Next(0); len(got) != 1 || got[0].Key != n {
		t.Fatalf("changes = %v", got)
	}
}

func TestCursor_WaitWakes(t *testing.T) {
	tests := map[string]struct {
		do   func(t *Table[string, int])
		wake bool
	}{
		"put":              {func(t *Table[string, int]) { t.Put("s", 0, "b", 1) }, true},
		"equal-put":        {func(t *Table[string, int]) { t.Put("s", 0, "a", 1) }, false},
		"delete":           {func(t *Table[string, int]) { t.Delete("s", 0, "a") }, true},
		"delete-nothing":   {func(t *Table[string, int]) { t.Delete("s", 0, "x") }, false},
		"synced":           {func(t *Table[string, int]) { t.MarkSynced("s") }, true},
		"already-unsynced": {func(t *Table[string, int]) { t.MarkUnsynced("s") }, false},
		"expect":           {func(t *Table[string, int]) { t.Expect("more") }, true},
		"expect-known":     {func(t *Table[string, int]) { t.Expect("s") }, false},
		"confirm":          {func(t *Table[string, int]) { t.Confirm("s", time.Now()) }, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table := NewTable[string]("test", Equal[int])
				table.Put("s", 0, "a", 1)
				other := NewTable[int]("other", Equal[int])
				c, d := table.Cursor(), other.Cursor()
				defer c.Close()
				defer d.Close()
				if err := c.Wait(t.Context()); err != nil { // a new cursor has everything to read
					t.Fatal(err)
				}
				c.Next(0)
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- WaitAny(ctx, d, c) }()
				synctest.Wait()
				tt.do(table)
				synctest.Wait()
				woke := len(done) == 1
				cancel()
				err := <-done
				if woke != tt.wake || (err == nil) != tt.wake {
					t.Fatalf("woke = %v, %v, want %v", woke, err, tt.wake)
				}
				if !tt.wake && !errors.Is(err, context.Canceled) {
					t.Fatalf("error = %v", err)
				}
			})
		})
	}
}

func TestCursor_WaitAfterClose(t *testing.T) {
	c := NewTable[string]("test", Equal[int]).Cursor()
	c.Close()
	if err := c.Wait(t.Context()); !errors.Is(err, errClosed) {
		t.Fatalf("error = %v", err)
	}
}

// Readers that wait and writers that write at full speed: every reader ends with what the table
// holds, and none sleeps through the end.
func TestCursor_NoLostWakeUp(t *testing.T) {
	table := NewTable[int]("test", Equal[int])
	const writers, readers, writes, keys = 3, 4, 5000, 50
	var wg sync.WaitGroup
	for w := range writers {
		src := Source(fmt.Sprint("writer", w))
		table.Expect(src)
		wg.Go(func() {
			for i := range writes {
				k := w*keys + i%keys
				if i%7 == 0 {
					table.Delete(src, 0, k)
				} else {
					table.Put(src, 0, k, i)
				}
			}
			table.MarkSynced(src)
		})
	}
	copies := make([]map[int]int, readers)
	for r := range readers {
		copies[r] = map[int]int{}
		c := table.Cursor()
		wg.Go(func() {
			defer c.Close()
			for !c.Synced() {
				if err := c.Wait(t.Context()); err != nil {
					t.Error(err)
					return
				}
				for _, ch := range c.Next(1 + r*20) {
					if ch.Deleted {
						delete(copies[r], ch.Key)
					} else {
						copies[r][ch.Key] = ch.Value
					}
				}
			}
		})
	}
	wg.Wait()
	want := map[int]int{}
	for row := range table.All() {
		want[row.Key] = row.Value
	}
	for r := range readers {
		if diff := cmp.Diff(want, copies[r]); diff != "" {
			t.Errorf("reader %d (-want +got):\n%s", r, diff)
		}
	}
}

func TestTable_Sources(t *testing.T) {
	table := NewTable[string]("test", Equal[int])
	if table.Synced() {
		t.Fatal("a table that nobody fills is synced")
	}
	at := time.Unix(1000, 0)
	table.Expect("b")
	table.Put("a", 0, "x", 1)
	table.Put("a", 0, "y", 1)
	table.Put("b", 0, "y", 1) // equal, and taken over
	table.MarkSynced("a")
	table.Confirm("a", at)
	want := []SourceStatus{{Source: "a", Synced: true, Confirmed: at, Rows: 1}, {Source: "b", Rows: 1}}
	if diff := cmp.Diff(want, table.Sources()); diff != "" {
		t.Fatalf("sources (-want +got):\n%s", diff)
	}
	if table.Synced() || !table.SyncedBy("a") || table.SyncedBy("b") || table.SyncedBy("c") {
		t.Fatal("marks are wrong")
	}
	table.Drop("b")
	if !table.Synced() || table.Len() != 1 {
		t.Fatal("a dropped source is still waited for")
	}
	// A thousand sources that come and go take one place.
	for i := range 1000 {
		src := Source(fmt.Sprint("cluster/", i))
		table.Put(src, 0, "z", i)
		table.Drop(src)
	}
	if len(table.sources) > 3 {
		t.Fatalf("%d places for 2 sources", len(table.sources))
	}
}
