// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"time"

	"github.com/weft-net/weft/state"
)

// apply writes changes to the table. A deletion that no owner makes is held, and one by the end of a
// lease settles. It returns false and has done nothing if ctx ended before it was known what they are:
// the next list decides.
func (w *Watch[K, V]) apply(ctx context.Context, changes []change[K, V]) bool {
	g := w.follow.guard
	var held map[int64]bool
	var expired map[string]int64
	var clock time.Duration
	now := time.Now()
	if g != nil {
		clock = g.time()
		deletions := w.deletions(changes)
		held = spans(deletions)
		// What empties the table may be the part of a larger deletion that this watch sees.
		if n := len(deletions); n > 0 && n >= w.stored() {
			if last := deletions[n-1]; !held[last.revision] {
				wide, err := g.wide(ctx, w.follow, last.revision, w.codec.Prefix, last.owner)
				if err != nil {
					return false
				}
				if wide {
					held[last.revision] = true
				}
			}
		}
		var err error
		if expired, err = w.expiredBy(ctx, changes, deletions, held); err != nil {
			return false
		}
	}
	w.hold.mu.Lock()
	before := len(w.hold.rows)
	w.table.Update(func(tw *state.Writer[K, V]) {
		for _, c := range changes {
			switch {
			case !c.deleted:
				tw.Put(w.source, c.value.Origin, c.key, c.value.Value)
				delete(w.hold.rows, c.raw)
			case w.keeps(tw, c, held, expired, heldGroup{revision: c.value.Origin, born: clock}, now):
			default:
				tw.Delete(w.source, c.value.Origin, c.key)
				delete(w.hold.rows, c.raw)
				w.unlearn(c.key)
			}
		}
	})
	after := len(w.hold.rows)
	w.hold.mu.Unlock()
	if g == nil {
		return true
	}
	last := g.returned(w.codec.Prefix, func(yield func(string) bool) {
		for _, c := range changes {
			if !c.deleted && !yield(c.raw) {
				return
			}
		}
	})
	if last || after > before || after == 0 && before > 0 { // one fewer of many changes nothing, and refresh counts them
		g.refresh()
	}
	return true
}

// keeps holds a row that was deleted, if its deletion is not to be believed at once.
func (w *Watch[K, V]) keeps(tw *state.Writer[K, V], c change[K, V], held map[int64]bool, expired map[string]int64, group heldGroup, now time.Time) bool {
	if !held[group.revision] && len(expired) == 0 {
		return false
	}
	v, ok := tw.Get(c.key)
	if !ok {
		return false
	}
	group.owner, group.why = w.ownerOf(c.key, v), WhySpan
	if !held[group.revision] {
		if at, gone := expired[group.owner]; !gone || at != group.revision {
			return false
		}
		group.why = WhyExpired
	}
	w.holdLocked(c.key, group, now)
	return true
}

// stored is the number of the source's rows that are not held.
func (w *Watch[K, V]) stored() int {
	w.hold.mu.Lock()
	defer w.hold.mu.Unlock()
	for _, s := range w.table.Sources() {
		if s.Source == w.source {
			return s.Rows - len(w.hold.rows)
		}
	}
	return 0
}

// deletions are those of rows that are known, with their owners.
func (w *Watch[K, V]) deletions(changes []change[K, V]) []deletion {
	var out []deletion
	fresh := map[K]V{} // put by this message
	for _, c := range changes {
		if !c.deleted {
			fresh[c.key] = c.value.Value
			w.learn(c.key, c.value.Value)
			continue
		}
		v, ok := fresh[c.key]
		if !ok {
			old, there := w.table.Get(c.key)
			if !there || old.Source != w.source {
				continue
			}
			v = old.Value
		}
		delete(fresh, c.key)
		out = append(out, deletion{revision: c.value.Origin, key: c.raw, owner: w.ownerOf(c.key, v)})
	}
	return out
}
