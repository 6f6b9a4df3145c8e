// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import "iter"

// List is a list of everything a source has, taken in piece by piece: [Table.Replace] for a list
// that is too large to be held in memory at once, or whose end may turn out to mean nothing. What
// is named applies at once; what is not named is deleted by [List.Commit], and stays if that is
// never called. What the source writes by other means meanwhile counts as named.
type List[K comparable, V any] struct {
	table *Table[K, V]
	src   Source
}

// List begins a list of src. A list of the same source that was begun before is void.
func (t *Table[K, V]) List(src Source) *List[K, V] {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := Writer[K, V]{table: t}
	w.beginList(t.sourceLocked(src))
	return &List[K, V]{table: t, src: src}
}

// Put writes one piece of the list and returns how many rows it changed. A row's origin is its own
// or else the one given. rows runs with the table locked: it must neither block nor use the table.
func (l *List[K, V]) Put(origin int64, rows iter.Seq2[K, Stamped[V]]) (put int) {
	t := l.table
	t.mu.Lock()
	defer t.mu.Unlock()
	w := Writer[K, V]{table: t}
	return w.putList(t.sourceLocked(l.src), origin, rows)
}

// Keep names a row without writing it: the list has the key, but not a value that can be used. It
// reports whether the source has a row there to keep.
func (l *List[K, V]) Keep(k K) bool {
	t := l.table
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.rows.find(t.rows.hashOf(k), k)
	if i == none {
		return false
	}
	at := t.rows.at(i)
	if at.state != slotLive || at.source != t.sourceLocked(l.src) {
		return false
	}
	at.listed = true
	return true
}

// Absent returns the number of the source's rows that have not been named so far.
func (l *List[K, V]) Absent() int {
	t := l.table
	t.mu.Lock()
	defer t.mu.Unlock()
	n, id := 0, t.sourceLocked(l.src)
	for i := none + 1; i < t.rows.used; i++ {
		if t.rows.unlisted(i, id) {
			n++
		}
	}
	return n
}

// Commit ends the list: it deletes, in one step, the rows of the source that were not named, and
// returns their number. Their origin becomes the one given.
func (l *List[K, V]) Commit(origin int64) (deleted int) {
	t := l.table
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.packLocked()
	w := Writer[K, V]{table: t}
	return w.endList(t.sourceLocked(l.src), origin)
}

// unlisted says whether slot i is a row of the source that its list has not named.
func (s *slots[K, V]) unlisted(i uint32, id uint16) bool {
	at := s.at(i)
	return at.state == slotLive && at.source == id && !at.listed
}

func (w *Writer[K, V]) beginList(id uint16) {
	rows := &w.table.rows
	for i := none + 1; i < rows.used; i++ {
		if at := rows.at(i); at.source == id {
			at.listed = false
		}
	}
}

func (w *Writer[K, V]) putList(id uint16, origin int64, rows iter.Seq2[K, Stamped[V]]) (put int) {
	for k, r := range rows {
		if r.Origin == 0 {
			r.Origin = origin
		}
		if w.put(id, r.Origin, k, r.Value) {
			put++
		}
	}
	return put
}

func (w *Writer[K, V]) endList(id uint16, origin int64) (deleted int) {
	rows := &w.table.rows
	for i := none + 1; i < rows.used; i++ {
		if rows.unlisted(i, id) {
			w.delete(i, origin)
			deleted++
		}
	}
	return deleted
}
