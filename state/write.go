// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"iter"
	"time"
)

// Put writes a row and reports whether that changed it. A value equal to the one that is there is
// no change: the row keeps its place, revision and time, only its source and origin are taken over.
func (t *Table[K, V]) Put(src Source, origin int64, k K, v V) (changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := Writer[K, V]{table: t}
	return w.Put(src, origin, k, v)
}

// Delete deletes the row of k if src wrote it, and reports whether it did.
func (t *Table[K, V]) Delete(src Source, origin int64, k K) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.packLocked()
	w := Writer[K, V]{table: t}
	return w.Delete(src, origin, k)
}

// Replace makes rows all that src has: it puts each of them and then deletes every row of src that
// was not named. A row's origin is its own or else the list's; a deletion's is the list's. Nobody
// sees the table half-way. rows runs with the table locked: it must neither block nor use the table.
func (t *Table[K, V]) Replace(src Source, origin int64, rows iter.Seq2[K, Stamped[V]]) (put, deleted int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.packLocked()
	w := Writer[K, V]{table: t}
	id := t.sourceLocked(src)
	w.beginList(id)
	put = w.putList(id, origin, rows)
	deleted = w.endList(id, origin)
	return put, deleted
}

// Update calls f once to make many changes under one lock: nobody sees the table half-way, and the
// lock is paid for once. f must neither block nor use the table except through w.
func (t *Table[K, V]) Update(f func(w *Writer[K, V])) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.packLocked()
	f(&Writer[K, V]{table: t})
}

// Drop deletes all rows of src and forgets the source with its marks: nobody waits for it any
// more. It returns the number of rows deleted.
func (t *Table[K, V]) Drop(src Source) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.packLocked()
	id, ok := t.bySource[src]
	if !ok {
		return 0
	}
	w := Writer[K, V]{table: t}
	deleted := 0
	for i := none + 1; i < t.rows.used && t.sources[id].rows > 0; i++ {
		if at := t.rows.at(i); at.state == slotLive && at.source == id {
			w.delete(i, 0)
			deleted++
		}
	}
	t.forgetLocked(src)
	return deleted
}

// Writer makes changes inside [Table.Update].
type Writer[K comparable, V any] struct {
	table *Table[K, V]
	now   int64 // when the first of the changes was made: one reading of the clock for all
}

// Put is [Table.Put].
func (w *Writer[K, V]) Put(src Source, origin int64, k K, v V) (changed bool) {
	return w.put(w.table.sourceLocked(src), origin, k, v)
}

// Delete is [Table.Delete].
func (w *Writer[K, V]) Delete(src Source, origin int64, k K) bool {
	t := w.table
	id, ok := t.bySource[src]
	if !ok {
		return false
	}
	i := t.rows.find(t.rows.hashOf(k), k)
	if i == none {
		return false
	}
	if at := t.rows.at(i); at.state != slotLive || at.source != id {
		return false
	}
	w.delete(i, origin)
	return true
}

// Get returns the value of k, the changes made so far included.
func (w *Writer[K, V]) Get(k K) (v V, ok bool) {
	t := w.table
	i := t.rows.find(t.rows.hashOf(k), k)
	if i == none || t.rows.at(i).state != slotLive {
		return v, false
	}
	return t.rows.at(i).value, true
}

func (w *Writer[K, V]) put(id uint16, origin int64, k K, v V) (changed bool) {
	t := w.table
	hash := t.rows.hashOf(k)
	i := t.rows.find(hash, k)
	switch {
	case i == none:
		i = t.rows.take(hash, k)
		t.rows.at(i).born = t.revision + 1
		t.live++
		t.sources[id].rows++
	case t.rows.at(i).state == slotDead:
		// Cursors that were given the earlier life are owed this one, or its end: born stays.
		t.sources[t.rows.at(i).source].dead--
		t.live++
		t.sources[id].rows++
		t.unlinkLocked(i)
	default:
		at := t.rows.at(i)
		if at.source != id {
			t.sources[at.source].rows--
			t.sources[id].rows++
			at.source = id
		}
		at.origin, at.listed = origin, true
		if t.equal != nil && t.equal(at.value, v) {
			return false
		}
		t.unlinkLocked(i)
	}
	at := t.rows.at(i)
	at.state, at.listed, at.source, at.origin, at.value, at.changed = slotLive, true, id, origin, v, w.time()
	t.linkLocked(i)
	return true
}

// delete ends the life of the row in slot i, which leaves a tombstone if a cursor has been given it.
func (w *Writer[K, V]) delete(i uint32, origin int64) {
	t := w.table
	at := t.rows.at(i)
	t.live--
	t.sources[at.source].rows--
	t.sources[at.source].dead++
	at.state, at.origin, at.changed = slotDead, origin, w.time()
	t.unlinkLocked(i)
	t.linkLocked(i)
	t.reapLocked(i)
}

func (w *Writer[K, V]) time() int64 {
	if w.now == 0 {
		w.now = time.Now().UnixNano()
	}
	return w.now
}
