// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"iter"
	"maps"
	"time"
)

// carriedRow is a held row that no watch has now: its watch has ended, or the process that held it, and
// perhaps its value with it.
type carriedRow struct {
	group heldGroup
	since time.Time
}

// carry keeps what a watch held for the next one of its rows.
func (g *Guard) carry(prefix string, rows map[string]carriedRow) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := resourceOf(prefix)
	if g.carried[r] == nil {
		g.carried[r] = map[string]carriedRow{}
	}
	maps.Copy(g.carried[r], rows)
}

// carriedOf returns what was held under a prefix. They are carried until taken.
func (g *Guard) carriedOf(prefix string) map[string]carriedRow {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.carried[resourceOf(prefix)])
}

// taken says which of the rows that were carried a watch has judged: it has them, or the store does.
// The others stay: nobody has their values any more, as after a restart without a checkpoint, but what
// is in the store is not all that there was, until words, a decision or the limit say that it is. If
// the store was lost once more, it is by those of its new lineage.
func (g *Guard) taken(prefix string, judged func(key string) bool, again func(heldGroup) heldGroup) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := resourceOf(prefix)
	for key, c := range g.carried[r] {
		if judged(key) {
			delete(g.carried[r], key)
			continue
		}
		c.group = again(c.group)
		g.carried[r][key] = c
	}
	if len(g.carried[r]) == 0 {
		delete(g.carried, r)
	}
}

// returned says that rows are in the store. last: they were the last that were carried of their kind.
func (g *Guard) returned(prefix string, keys iter.Seq[string]) (last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := resourceOf(prefix)
	if len(g.carried[r]) == 0 {
		return false
	}
	for key := range keys {
		delete(g.carried[r], key)
	}
	if last = len(g.carried[r]) == 0; last {
		delete(g.carried, r)
	}
	return last
}

// carriedGroups counts what is carried. Rows of an earlier process that nobody watches any more are
// not counted: nobody has them.
func (g *Guard) carriedGroups(into map[heldGroup]int, kinds map[string]int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for r, rows := range g.carried {
		if !g.enrolled[r] {
			continue
		}
		for _, c := range rows {
			into[c.group]++
			if !c.group.settling(g.mass) {
				kinds[r]++
			}
		}
	}
}

// endCarried lets go of carried rows of some groups: the next watch deletes what is absent.
func (g *Guard) endCarried(gone func(heldGroup) bool) (ended int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for r, rows := range g.carried {
		for key, c := range rows {
			if gone(c.group) {
				delete(rows, key)
				ended++
			}
		}
		if len(rows) == 0 {
			delete(g.carried, r)
		}
	}
	return ended
}

// carriesExpiredLocked says whether rows are carried that went with their owners' leases.
func (g *Guard) carriesExpiredLocked() bool {
	for _, rows := range g.carried {
		for _, c := range rows {
			if c.group.why == WhyExpired {
				return true
			}
		}
	}
	return false
}

// carriedRows returns at most limit of them.
func (g *Guard) carriedRows(limit int) (out []HeldRow) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for r, rows := range g.carried {
		if !g.enrolled[r] {
			continue
		}
		for key, c := range rows {
			if len(out) >= limit {
				return out
			}
			out = append(out, HeldRow{key, r, c.group.owner, c.since, c.group.why, c.group.settling(g.mass)})
		}
	}
	return out
}

// allHeld returns everything that is held, by resource and key.
func (g *Guard) allHeld() map[string]map[string]carriedRow {
	out := map[string]map[string]carriedRow{}
	g.mu.Lock()
	for r, rows := range g.carried {
		out[r] = maps.Clone(rows)
	}
	g.mu.Unlock()
	into := func(r string) map[string]carriedRow {
		if out[r] == nil {
			out[r] = map[string]carriedRow{}
		}
		return out[r]
	}
	for _, m := range g.membersNow() {
		m.held(into(resourceOf(m.prefix())))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for r, rows := range g.carried { // what a watch has left behind meanwhile
		maps.Copy(into(r), rows)
	}
	maps.DeleteFunc(out, func(_ string, rows map[string]carriedRow) bool { return len(rows) == 0 })
	return out
}
