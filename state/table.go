// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"hash/maphash"
	"iter"
	"sync"
	"time"
)

// Table is a map of rows in the order of their last change. All methods may be called from any
// goroutine. None blocks except for the table's own lock.
//
// A row costs about 60 bytes beside its key and value: 48 in the slot, 5 to 11 in the index, padding.
type Table[K comparable, V any] struct {
	name  string
	equal func(a, b V) bool

	mu       sync.RWMutex
	rows     slots[K, V]
	live     int    // rows that are not tombstones
	revision uint64 // of the last change
	cursors  []*Cursor[K, V]
	marks    uint64 // counts changes of sync marks and expectations
	sources  []source
	bySource map[Source]uint16
	columns  []*column
	walks    int // walks that hold slot numbers: nothing is moved meanwhile
}

// NewTable returns an empty table. The name is for messages and status. Two values for which equal
// reports true are the same row: writing the second is no change. A nil equal makes every write a
// change.
func NewTable[K comparable, V any](name string, equal func(a, b V) bool) *Table[K, V] {
	return &Table[K, V]{
		name:     name,
		equal:    equal,
		rows:     newSlots[K, V](maphash.MakeSeed()),
		bySource: make(map[Source]uint16),
	}
}

// Name returns the name given to [NewTable].
func (t *Table[K, V]) Name() string { return t.name }

// Get returns the row of k.
func (t *Table[K, V]) Get(k K) (Row[K, V], bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	i := t.rows.find(t.rows.hashOf(k), k)
	if i == none || t.rows.at(i).state != slotLive {
		return Row[K, V]{}, false
	}
	return t.rowLocked(i), true
}

// Len returns the number of rows.
func (t *Table[K, V]) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.live
}

// Revision returns the revision of the last change, 0 if there was none.
func (t *Table[K, V]) Revision() uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.revision
}

// All returns a walk over the rows in no particular order. It is weakly consistent: it holds the
// lock for a few rows at a time, so the loop's body may use the table. A row that is there during
// the whole walk comes exactly once, one that comes, changes or goes meanwhile may come in any of
// the forms it had, and one that is deleted and put again may come twice. A reader that must not
// miss what happens later takes a [Cursor] instead.
func (t *Table[K, V]) All() iter.Seq[Row[K, V]] {
	return func(yield func(Row[K, V]) bool) {
		w := t.walk()
		defer w.close()
		for rows := w.next(walkRows); len(rows) > 0; rows = w.next(walkRows) {
			for _, r := range rows {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// walkRows is how many rows a walk copies under one lock.
const walkRows = 64

// walker is a walk over the rows in the order of their slots.
type walker[K comparable, V any] struct {
	table *Table[K, V]
	slot  uint32
	rows  []Row[K, V]
}

func (t *Table[K, V]) walk() *walker[K, V] {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.walks++
	return &walker[K, V]{table: t, slot: none + 1}
}

// next returns up to limit rows, valid until the next call; none at the end.
func (w *walker[K, V]) next(limit int) []Row[K, V] {
	t := w.table
	t.mu.RLock()
	defer t.mu.RUnlock()
	w.rows = w.rows[:0]
	for ; w.slot < t.rows.used && len(w.rows) < limit; w.slot++ {
		if t.rows.at(w.slot).state == slotLive {
			w.rows = append(w.rows, t.rowLocked(w.slot))
		}
	}
	return w.rows
}

func (w *walker[K, V]) close() {
	w.table.mu.Lock()
	defer w.table.mu.Unlock()
	w.table.walks--
	w.table.packLocked()
}

func (t *Table[K, V]) rowLocked(i uint32) Row[K, V] {
	at := t.rows.at(i)
	return Row[K, V]{
		Key:      at.key,
		Value:    at.value,
		Source:   t.sources[at.source].name,
		Origin:   at.origin,
		Revision: at.revision,
		Changed:  time.Unix(0, at.changed),
	}
}

// linkLocked makes the row in slot i the last change, under a new revision.
func (t *Table[K, V]) linkLocked(i uint32) {
	t.revision++
	t.rows.at(i).revision = t.revision
	t.rows.link(i)
	for _, c := range t.cursors {
		if c.next == none {
			c.next = i
		}
		c.wakeLocked()
	}
}

// unlinkLocked takes slot i out of the order; a cursor that stood before it goes on behind it.
func (t *Table[K, V]) unlinkLocked(i uint32) {
	for _, c := range t.cursors {
		if c.next == i {
			c.next = t.rows.at(i).next
		}
	}
	t.rows.unlink(i)
}

// freeLocked forgets the unlinked slot i.
func (t *Table[K, V]) freeLocked(i uint32) {
	for _, c := range t.columns {
		c.clear(i)
	}
	t.rows.drop(i)
}

// wantedLocked says whether a cursor has still to deliver the deletion in slot i. A cursor that
// stands before the key's birth was never given the row and needs no word of its end; that is what
// bounds the tombstones a standing cursor holds to the rows it has been given.
func (t *Table[K, V]) wantedLocked(i uint32) bool {
	at := t.rows.at(i)
	for _, c := range t.cursors {
		if owed(c.passed, at.born, at.revision) {
			return true
		}
	}
	return false
}

// reapLocked forgets the tombstone in slot i if nobody wants it any more.
func (t *Table[K, V]) reapLocked(i uint32) {
	if t.wantedLocked(i) {
		return
	}
	t.sources[t.rows.at(i).source].dead--
	t.unlinkLocked(i)
	t.freeLocked(i)
}

// packLocked gives memory back after most of the rows went. It renumbers the slots.
func (t *Table[K, V]) packLocked() {
	if t.walks > 0 || !t.rows.sparse() {
		return
	}
	next := make(map[uint32][]*Cursor[K, V], len(t.cursors))
	for _, c := range t.cursors {
		if c.next != none {
			next[c.next] = append(next[c.next], c)
		}
	}
	columns := make([]column, len(t.columns))
	t.rows = t.rows.packed(func(from, to uint32) {
		for _, c := range next[from] {
			c.next = to
		}
		for n, c := range t.columns {
			columns[n].set(to, c.get(from))
		}
	})
	for n := range t.columns {
		*t.columns[n] = columns[n]
	}
}
