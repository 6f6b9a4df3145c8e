// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// model is the naive table: a map, and per cursor what the reader believes.
type model struct {
	rows map[int]modelRow
}

type modelRow struct {
	value  int
	source Source
}

// reader is a cursor with the copy of the table that its changes make.
type reader struct {
	cursor   *Cursor[int, int]
	copy     map[int]int
	revision uint64
}

func (r *reader) read(t *testing.T, max int) {
	t.Helper()
	changes := r.cursor.Next(max)
	if max > 0 && len(changes) > max {
		t.Fatalf("Next(%d) returned %d changes", max, len(changes))
	}
	seen := map[int]bool{}
	for _, c := range changes {
		if c.Revision <= r.revision {
			t.Fatalf("change of revision %d after one of revision %d", c.Revision, r.revision)
		}
		r.revision = c.Revision
		if seen[c.Key] {
			t.Fatalf("key %d twice in one Next", c.Key)
		}
		seen[c.Key] = true
		if c.Deleted {
			delete(r.copy, c.Key)
		} else {
			r.copy[c.Key] = c.Value
		}
	}
}

// drive runs the operations that next encodes against a table and the model.
func drive(t *testing.T, next func(n int) (int, bool)) {
	table := NewTable[int]("test", Equal[int])
	m := model{rows: map[int]modelRow{}}
	var readers []*reader
	sources := []Source{"a", "b", "c"}
	marks := map[Source]bool{}
	var revision uint64

	arg := func(n int) int { v, _ := next(n); return v }
	for {
		op, ok := next(20)
		if !ok {
			break
		}
		src := sources[arg(len(sources))]
		switch {
		case op < 6:
			k, v := arg(40), arg(3)
			old, had := m.rows[k]
			want := !had || old.value != v
			if got := table.Put(src, int64(v), k, v); got != want {
				t.Fatalf("Put(%s, %d, %d) = %v, want %v", src, k, v, got, want)
			}
			m.rows[k] = modelRow{v, src}
			marks[src] = marks[src]
		case op < 10:
			k := arg(40)
			old, had := m.rows[k]
			want := had && old.source == src
			if got := table.Delete(src, 1, k); got != want {
				t.Fatalf("Delete(%s, %d) = %v, want %v", src, k, got, want)
			}
			if want {
				delete(m.rows, k)
			}
		case op == 10:
			list := map[int]Stamped[int]{}
			for range arg(20) {
				list[arg(40)] = Stamped[int]{Value: arg(3)}
			}
			wantPut, wantDeleted := 0, 0
			for k, v := range list {
				if old, had := m.rows[k]; !had || old.value != v.Value {
					wantPut++
				}
				m.rows[k] = modelRow{v.Value, src}
			}
			for k, r := range m.rows {
				if _, named := list[k]; !named && r.source == src {
					delete(m.rows, k)
					wantDeleted++
				}
			}
			put, deleted := table.Replace(src, 7, maps.All(list))
			if put != wantPut || deleted != wantDeleted {
				t.Fatalf("Replace(%s, %v) = %d, %d, want %d, %d", src, list, put, deleted, wantPut, wantDeleted)
			}
			marks[src] = marks[src]
		case op == 11 && arg(2) == 0: // a list in pieces, and other things between them
			named := map[int]bool{}
			list := table.List(src)
			for range arg(5) {
				k, v := arg(40), arg(3)
				switch arg(3) {
				case 0:
					list.Put(7, maps.All(map[int]Stamped[int]{k: {Value: v}}))
					m.rows[k] = modelRow{v, src}
					named[k] = true
				case 1:
					want := m.rows[k].source == src
					if got := list.Keep(k); got != want {
						t.Fatalf("Keep(%d) = %v, want %v", k, got, want)
					}
					named[k] = named[k] || want
				case 2:
					other := sources[arg(len(sources))]
					table.Put(other, 0, k, v)
					m.rows[k] = modelRow{v, other}
					marks[other] = marks[other]
					named[k] = other == src
				}
			}
			marks[src] = marks[src]
			want := 0
			for k, r := range m.rows {
				if r.source == src && !named[k] {
					want++
				}
			}
			if got := list.Absent(); got != want {
				t.Fatalf("Absent = %d, want %d", got, want)
			}
			if arg(2) == 0 {
				break // given up: nothing is deleted
			}
			maps.DeleteFunc(m.rows, func(k int, r modelRow) bool { return r.source == src && !named[k] })
			if got := list.Commit(9); got != want {
				t.Fatalf("Commit = %d, want %d", got, want)
			}
		case op == 11 && arg(2) == 0:
			want := 0
			for k, r := range m.rows {
				if r.source == src {
					delete(m.rows, k)
					want++
				}
			}
			if got := table.Drop(src); got != want {
				t.Fatalf("Drop(%s) = %d, want %d", src, got, want)
			}
			delete(marks, src)
		case op == 12:
			if len(readers) < 5 {
				readers = append(readers, &reader{cursor: table.Cursor(), copy: map[int]int{}})
			}
		case op == 13 && len(readers) > 0 && arg(4) == 0:
			i := arg(len(readers))
			readers[i].cursor.Close()
			if got := readers[i].cursor.Next(0); got != nil {
				t.Fatalf("Next after Close = %v", got)
			}
			readers = slices.Delete(readers, i, i+1)
		case op < 18 && len(readers) > 0:
			readers[arg(len(readers))].read(t, 1+arg(10))
		case op == 18:
			table.MarkSynced(src)
			marks[src] = true
		case op == 19 && arg(3) == 0:
			table.MarkUnsynced(src)
			marks[src] = false
		}
		if table.Revision() < revision {
			t.Fatalf("revision went from %d to %d", revision, table.Revision())
		}
		revision = table.Revision()
		check(t, table, m, marks)
	}
	for _, r := range readers {
		for !r.cursor.Drained() {
			r.read(t, 3)
		}
		want := map[int]int{}
		for k, row := range m.rows {
			want[k] = row.value
		}
		if diff := cmp.Diff(want, r.copy); diff != "" {
			t.Fatalf("a reader's copy (-want +got):\n%s", diff)
		}
	}
	if dead := table.rows.held - table.live; dead != 0 {
		t.Fatalf("%d tombstones left after all cursors passed", dead)
	}
	for _, r := range readers {
		r.cursor.Close()
	}
}

// check compares everything that can be read with the model, and the storage with itself.
func check(t *testing.T, table *Table[int, int], m model, marks map[Source]bool) {
	t.Helper()
	if table.Len() != len(m.rows) {
		t.Fatalf("Len = %d, want %d", table.Len(), len(m.rows))
	}
	got := map[int]modelRow{}
	for r := range table.All() {
		got[r.Key] = modelRow{r.Value, r.Source}
	}
	if !maps.Equal(got, m.rows) {
		t.Fatalf("All = %v, want %v", got, m.rows)
	}
	synced := len(marks) > 0
	for src, ok := range marks {
		synced = synced && ok
		if table.SyncedBy(src) != ok {
			t.Fatalf("SyncedBy(%s) = %v", src, !ok)
		}
	}
	if table.Synced() != synced {
		t.Fatalf("Synced = %v with marks %v", !synced, marks)
	}
	for _, s := range table.Sources() {
		n := 0
		for _, r := range m.rows {
			if r.source == s.Source {
				n++
			}
		}
		if s.Rows != n {
			t.Fatalf("source %s has %d rows, want %d", s.Source, s.Rows, n)
		}
	}
	held, last := 0, uint64(0)
	for i := table.rows.head; i != none; i = table.rows.at(i).next {
		at := table.rows.at(i)
		held++
		if at.revision <= last {
			t.Fatalf("slot %d of revision %d behind one of revision %d", i, at.revision, last)
		}
		last = at.revision
		if at.state == slotDead && !table.wantedLocked(i) {
			t.Fatalf("a tombstone that nobody wants")
		}
		if table.rows.find(at.hash, at.key) != i {
			t.Fatalf("slot %d is not found by its key", i)
		}
	}
	if held != table.rows.held {
		t.Fatalf("%d slots in the order, %d held", held, table.rows.held)
	}
}

func TestTable_AgainstModel(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			steps := 3000
			drive(t, func(n int) (int, bool) { steps--; return rnd.IntN(n), steps/3 > 0 })
		})
	}
}

func FuzzTable(f *testing.F) {
	f.Add([]byte{0, 0, 1, 1, 12, 0, 14, 0, 0, 5, 6, 0, 1, 14, 0, 0, 5})
	f.Fuzz(func(t *testing.T, ops []byte) {
		drive(t, func(n int) (int, bool) {
			if len(ops) == 0 {
				return 0, false
			}
			v := int(ops[0]) % n
			ops = ops[1:]
			return v, true
		})
	})
}
