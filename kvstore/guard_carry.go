// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"maps"
	"time"
)

// carriedRow is a held row that no watch has now: its watch has ended, or the process that held it.
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

// taken says that a watch has judged what was carried.
func (g *Guard) taken(prefix string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.carried, resourceOf(prefix))
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
	for _, m := range g.membersNow() {
		r := resourceOf(m.prefix())
		if out[r] == nil {
			out[r] = map[string]carriedRow{}
		}
		m.held(out[r])
		if len(out[r]) == 0 {
			delete(out, r)
		}
	}
	return out
}
