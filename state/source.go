// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"math"
	"slices"
	"strings"
	"time"
)

// source is one source of a table. Its index in Table.sources is what rows name it by, so the
// place of a forgotten one is used again only when no tombstone names it.
type source struct {
	name      Source
	forgotten bool
	synced    bool
	confirmed time.Time
	rows      int
	dead      int
}

// Expect names sources that must have synced before [Table.Synced] is true. A source that writes,
// or whose marks are set, is expected without being named here.
func (t *Table[K, V]) Expect(src ...Source) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range src {
		t.sourceLocked(s)
	}
}

// MarkSynced says that src has delivered everything it has.
func (t *Table[K, V]) MarkSynced(src Source) { t.mark(src, true) }

// MarkUnsynced takes [Table.MarkSynced] back: what src has delivered may not be everything.
func (t *Table[K, V]) MarkUnsynced(src Source) { t.mark(src, false) }

func (t *Table[K, V]) mark(src Source, synced bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.sources[t.sourceLocked(src)]
	if s.synced != synced {
		s.synced = synced
		t.markedLocked()
	}
}

// Confirm says that at the given time the rows of src were those of the store they come from. It
// is no change and wakes nobody.
func (t *Table[K, V]) Confirm(src Source, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sources[t.sourceLocked(src)].confirmed = at
}

// Synced says that every expected source has synced, and that there is at least one: of a table
// that nobody fills nothing is known. Nothing outside may be removed before that.
func (t *Table[K, V]) Synced() bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.syncedLocked()
}

func (t *Table[K, V]) syncedLocked() bool {
	for _, id := range t.bySource {
		if !t.sources[id].synced {
			return false
		}
	}
	return len(t.bySource) > 0
}

// SyncedBy says that src has synced.
func (t *Table[K, V]) SyncedBy(src Source) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	id, ok := t.bySource[src]
	return ok && t.sources[id].synced
}

// Sources returns the expected sources in the order of their names.
func (t *Table[K, V]) Sources() []SourceStatus {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]SourceStatus, 0, len(t.bySource))
	for _, id := range t.bySource {
		s := t.sources[id]
		out = append(out, SourceStatus{Source: s.name, Synced: s.synced, Confirmed: s.confirmed, Rows: s.rows})
	}
	slices.SortFunc(out, func(a, b SourceStatus) int { return strings.Compare(string(a.Source), string(b.Source)) })
	return out
}

// sourceLocked returns the index of src and expects it from now on.
func (t *Table[K, V]) sourceLocked(src Source) uint16 {
	if id, ok := t.bySource[src]; ok {
		return id
	}
	id := slices.IndexFunc(t.sources, func(s source) bool { return s.forgotten && s.rows == 0 && s.dead == 0 })
	if id < 0 {
		id = len(t.sources)
		if id > math.MaxUint16 {
			// A mesh has at most 511 clusters: only a name per row comes here.
			panic("state: table " + t.name + ": more than 65536 sources")
		}
		t.sources = append(t.sources, source{})
	}
	t.sources[id] = source{name: src}
	t.bySource[src] = uint16(id)
	t.markedLocked()
	return uint16(id)
}

func (t *Table[K, V]) forgetLocked(src Source) {
	id := t.bySource[src]
	delete(t.bySource, src)
	t.sources[id].forgotten = true
	t.markedLocked()
}

// markedLocked tells the cursors that the marks are others than they were.
func (t *Table[K, V]) markedLocked() {
	t.marks++
	for _, c := range t.cursors {
		c.wakeLocked()
	}
}
