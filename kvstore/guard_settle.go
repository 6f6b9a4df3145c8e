// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"maps"
	"time"
)

// end lets held rows go whose watches have seen the store up to the revision by which they go: what
// somebody says of the store is true there sooner than in the table of a watch that is behind. Rows
// that no watch has go at once, the next list decides over them.
func (g *Guard) end(ends map[heldGroup]int64) (ended int) {
	for _, m := range g.membersNow() {
		reached, behind := g.reachedBy(m), false
		ended += m.end(func(h heldGroup) bool {
			need, ok := ends[h]
			behind = behind || ok && need > reached
			return ok && need <= reached
		})
		if behind {
			m.follower().askNow()
		}
	}
	return ended + g.endCarried(func(h heldGroup) bool { _, ok := ends[h]; return ok })
}

// reachedBy is the revision of the present lineage up to which a watch has seen the store, -1 if it
// has not listed it.
func (g *Guard) reachedBy(m member) int64 {
	f := m.follower()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.generation == 0 || g.followers[f] != g.generation {
		return -1
	}
	return f.status().revision
}

// dueAt replaces the revision 0 of what goes because its time is over: by the newest that anybody had
// seen when that was found.
func (g *Guard) dueAt(ends map[heldGroup]int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	due := map[heldGroup]int64{}
	newest := g.lineage.revision
	if g.connectedLocked() {
		newest = max(newest, g.beating.status().revision)
	}
	for h, need := range ends {
		if need != 0 {
			continue
		}
		if due[h] = g.due[h]; due[h] == 0 {
			due[h] = newest
		}
		ends[h] = due[h]
	}
	g.due = due
}

// groups counts what is held. Rows on their way between the guard and a watch may count twice.
func (g *Guard) groups(into map[heldGroup]int, kinds map[string]int) {
	mass := g.massive()
	g.carriedGroups(into, kinds)
	for _, m := range g.membersNow() {
		m.groups(into, kinds, mass)
	}
	left, leftKinds := map[heldGroup]int{}, map[string]int{} // by watches that ended meanwhile
	g.carriedGroups(left, leftKinds)
	for h, n := range left {
		into[h] = max(into[h], n)
	}
	for r, n := range leftKinds {
		kinds[r] = max(kinds[r], n)
	}
}

// massive says whether so many leases ended that all their rows are held.
func (g *Guard) massive() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mass
}

// facts gathers what the end of the hold depends on.
func (g *Guard) facts() (holdFacts, map[string]int) {
	groups, kinds := map[heldGroup]int{}, map[string]int{}
	g.groups(groups, kinds)
	g.mu.Lock()
	defer g.mu.Unlock()
	f := holdFacts{
		groups: groups, words: map[string]ownerWord{}, known: map[string]bool{}, epoch: g.lineage.epoch,
		clock: g.clock, limit: g.cfg.Limit, brief: g.cfg.Brief, owners: g.cfg.Owners && g.weft,
		expired: map[string]time.Duration{}, mass: g.mass, settle: g.cfg.Settle, adopted: g.adopted,
	}
	owners := map[string]bool{}
	for owner, e := range g.expiries {
		if age := g.online - e.at; age < g.cfg.Lease {
			f.expired[owner] = age
			owners[owner] = true
		} else {
			delete(g.expiries, owner)
		}
	}
	for name := range g.nodeKeys {
		owners[name] = true
	}
	for name, w := range g.words {
		f.words[name] = w
	}
	for name := range g.known {
		f.known[name] = true
	}
	for group := range groups {
		if group.owner != OwnerEverybody && !noNode(group.owner) {
			f.known[group.owner] = true
		}
	}
	for name := range f.known {
		if !noNode(name) {
			owners[name] = true
		}
	}
	f.nodes = len(owners)
	return f, kinds
}

// settle ends what is to end.
func (g *Guard) settle() {
	f, _ := g.facts()
	v := judgeHold(f)
	g.massed(v.mass, f.groups)
	if len(v.end) > 0 {
		g.dueAt(v.end)
		if ended := g.end(v.end); ended > 0 {
			g.log.Info("held rows let go", "cluster", g.cfg.Cluster, "rows", ended, "unconfirmed", v.unconfirmed)
		}
	}
	g.refresh()
}

// massed takes over whether too many leases ended, for as long as rows are there that went with them,
// those among them that nobody watches yet.
func (g *Guard) massed(mass bool, groups map[heldGroup]int) {
	expired := false
	for h := range groups {
		expired = expired || h.why == WhyExpired
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if mass = mass && (expired || g.carriesExpiredLocked()); mass && !g.mass {
		g.log.Warn("leases of too many owners ended at once, their rows are held", "cluster", g.cfg.Cluster, "owners", len(g.expiries))
	}
	g.mass = mass
}

// refresh finds out whether the guard holds and marks the sources of its watches.
func (g *Guard) refresh() {
	g.marking <- struct{}{}
	defer func() { <-g.marking }()
	groups := map[heldGroup]int{}
	g.groups(groups, map[string]int{})
	members := g.membersNow()
	g.mu.Lock()
	unjudged := g.unjudgedLocked()
	maps.DeleteFunc(groups, func(h heldGroup, _ int) bool { return h.settling(g.mass) })
	holding := len(groups) > 0 || time.Now().Before(g.rest) || unjudged
	g.broke = g.broke && unjudged
	if !holding && len(g.carried) == 0 {
		g.since = time.Time{}
	}
	if holding != g.holding {
		g.holding = holding
		if !holding { // who left in the hold is waited for no longer
			maps.DeleteFunc(g.known, func(_ string, here bool) bool { return !here })
		}
		if holding && g.since.IsZero() { // else an earlier process held
			g.since = time.Now()
			for h := range groups {
				if h.why != WhyLineage {
					g.reason = string(h.why)
				}
			}
		}
		close(g.changed)
		g.changed = make(chan struct{})
		g.log.Info("hold", "cluster", g.cfg.Cluster, "holding", holding, "reason", g.reason)
	}
	g.mu.Unlock()
	for _, m := range members {
		m.mark(holding)
	}
}
