// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"strings"
	"sync"
	"time"

	"github.com/weft-net/weft/state"
)

// hold is what a watch keeps in its table although the store does not have it. The lock is held
// while rows are written, so that a row is not put and let go at once.
type hold[K comparable] struct {
	mu     sync.Mutex
	rows   map[string]heldRow[K] // by raw key
	listed bool
}

type heldRow[K comparable] struct {
	key   K
	group heldGroup
	since time.Time
}

// inherit finds out of which lineage the rows are that stand in the table, or aside, before the first
// list.
func (w *Watch[K, V]) inherit() {
	if w.follow.generation != 0 {
		return
	}
	if len(w.aside) > 0 {
		w.follow.generation = w.follow.guard.leftBy(w.codec.Prefix)
		return
	}
	for _, s := range w.table.Sources() {
		if s.Source == w.source && s.Rows > 0 {
			w.follow.generation = w.follow.guard.leftBy(w.codec.Prefix)
		}
	}
}

// leave leaves rows behind for another watch, and with the guard which of them are held.
func (w *Watch[K, V]) leave() {
	w.hold.mu.Lock()
	defer w.hold.mu.Unlock()
	if len(w.hold.rows) == 0 {
		return
	}
	rows := make(map[string]carriedRow, len(w.hold.rows))
	for raw, h := range w.hold.rows {
		rows[raw] = carriedRow{h.group, h.since}
	}
	w.follow.guard.carry(w.codec.Prefix, rows)
	w.hold.rows = nil
}

func (w *Watch[K, V]) prefix() string { return w.codec.Prefix }

func (w *Watch[K, V]) follower() *follower { return w.follow }

// keepLocked adds what must stay to the list in progress and returns how many rows are held.
func (w *Watch[K, V]) keepLocked(revision int64, continuity Continuity, expired map[string]int64) int {
	g := w.follow.guard
	aside := w.aside
	w.aside = nil
	if g == nil {
		return 0
	}
	present := make(map[K]struct{}, len(w.pending))
	for _, r := range w.pending {
		present[r.key] = struct{}{}
		w.learn(r.key, r.value.Value)
	}
	stay := func(r row[K, V]) {
		w.pending = append(w.pending, r)
		present[r.key] = struct{}{}
	}
	lost := continuity == ContinuityBroken || continuity == ContinuityUnproven
	clock := g.time()
	for raw, h := range w.hold.rows {
		old, ok := w.table.Get(h.key)
		if _, back := present[h.key]; back || !ok || old.Source != w.source {
			delete(w.hold.rows, raw)
			continue
		}
		if lost { // a revision of the store before says nothing of words in this one
			h.group = h.group.lost(revision, clock)
			w.hold.rows[raw] = h
		}
		stay(row[K, V]{key: h.key, value: state.Stamped[V]{Value: old.Value, Origin: old.Origin}})
	}
	carried := g.carriedOf(w.codec.Prefix)
	judged := map[string]struct{}{} // what was carried and is here
	if len(carried) > 0 {
		for k := range present {
			judged[w.raw(k)] = struct{}{}
		}
	}
	// absent decides over one row that was known and that the list does not have.
	absent := func(r row[K, V]) {
		if _, ok := present[r.key]; ok {
			return
		}
		before, was := carried[w.raw(r.key)]
		owner := w.ownerOf(r.key, r.value.Value)
		_, gone := expired[owner]
		switch {
		case lost:
			group, since := heldGroup{owner, WhyLineage, revision, clock}, time.Now()
			if was {
				group, since = before.group.lost(revision, clock), before.since
				group.owner = owner
			}
			w.holdLocked(r.key, group, since)
		case was:
			w.holdLocked(r.key, before.group, before.since)
		case gone:
			w.holdLocked(r.key, heldGroup{owner, WhyExpired, revision, clock}, time.Now())
		default:
			return
		}
		stay(r)
	}
	known := func(r row[K, V], source state.Source) {
		if len(carried) > 0 {
			judged[w.raw(r.key)] = struct{}{}
		}
		if source == w.source {
			absent(r)
		}
	}
	if lost || len(carried) > 0 || len(expired) > 0 {
		for r := range w.table.All() {
			known(row[K, V]{key: r.Key, value: state.Stamped[V]{Value: r.Value, Origin: r.Origin}}, r.Source)
		}
		for _, r := range aside {
			source := w.source
			if other, ok := w.table.Get(r.key); ok {
				source = other.Source
			}
			known(r, source)
		}
	}
	g.taken(w.codec.Prefix, func(key string) bool {
		_, here := judged[key]
		_, bad := w.seen[key] // it is there, with a value that nobody can read
		return here || bad || !strings.HasPrefix(key, w.codec.Prefix)
	}, func(h heldGroup) heldGroup {
		if lost {
			return h.lost(revision, clock)
		}
		return h
	})
	w.hold.listed = true
	return len(w.hold.rows)
}

// raw is a key as it stands in the store.
func (w *Watch[K, V]) raw(k K) string { return w.codec.Prefix + w.codec.FormatKey(k) }

func (w *Watch[K, V]) holdLocked(k K, group heldGroup, since time.Time) {
	if w.hold.rows == nil {
		w.hold.rows = map[string]heldRow[K]{}
	}
	w.hold.rows[w.raw(k)] = heldRow[K]{k, group, since}
}

// mark says whether the source has delivered everything it has.
func (w *Watch[K, V]) mark(holding bool) {
	w.hold.mu.Lock()
	defer w.hold.mu.Unlock()
	if !w.hold.listed {
		return
	}
	if holding {
		w.table.MarkUnsynced(w.source)
	} else {
		w.table.MarkSynced(w.source)
	}
	if w.copies != nil {
		w.copies.mark(holding)
	}
}

func (w *Watch[K, V]) groups(into map[heldGroup]int, kinds map[string]int, mass bool) {
	w.hold.mu.Lock()
	defer w.hold.mu.Unlock()
	r := resourceOf(w.codec.Prefix)
	for _, h := range w.hold.rows {
		into[h.group]++
		if !h.group.settling(mass) {
			kinds[r]++
		}
	}
}

func (w *Watch[K, V]) heldRows(limit int, mass bool) []HeldRow {
	w.hold.mu.Lock()
	defer w.hold.mu.Unlock()
	var out []HeldRow
	for raw, h := range w.hold.rows {
		if len(out) >= limit {
			break
		}
		out = append(out, HeldRow{raw, resourceOf(w.codec.Prefix), h.group.owner, h.since, h.group.why, h.group.settling(mass)})
	}
	return out
}

// held adds what the watch holds.
func (w *Watch[K, V]) held(into map[string]carriedRow) {
	w.hold.mu.Lock()
	defer w.hold.mu.Unlock()
	for raw, h := range w.hold.rows {
		into[raw] = carriedRow{h.group, h.since}
	}
}

// end deletes the held rows of some groups.
func (w *Watch[K, V]) end(gone func(heldGroup) bool) int {
	w.hold.mu.Lock()
	defer w.hold.mu.Unlock()
	var ended []K
	w.table.Update(func(tw *state.Writer[K, V]) {
		for raw, h := range w.hold.rows {
			if gone(h.group) {
				tw.Delete(w.source, h.group.revision, h.key)
				delete(w.hold.rows, raw)
				w.unlearn(h.key)
				ended = append(ended, h.key)
			}
		}
	})
	if w.copies != nil && len(ended) > 0 {
		w.copies.gone(ended)
	}
	return len(ended)
}

// values are the held rows of some groups as they would stand in the store.
func (w *Watch[K, V]) values(of func(heldGroup) bool) ([]KV, error) {
	w.hold.mu.Lock()
	defer w.hold.mu.Unlock()
	out := make([]KV, 0, len(w.hold.rows))
	for raw, h := range w.hold.rows {
		r, ok := w.table.Get(h.key)
		if !ok || !of(h.group) {
			continue
		}
		b, err := w.codec.Encode(h.key, r.Value)
		if err != nil {
			return nil, err
		}
		out = append(out, KV{Key: raw, Value: b})
	}
	return out, nil
}
