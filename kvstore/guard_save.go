// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"maps"
)

// save writes to disk what has changed: first what is held, then the lineage, by whose word the rest of
// what is absent is deleted. After a break the lineage waits until all rows were judged: a process
// that starts anew before has to find the break again.
func (g *Guard) save() {
	if g.cfg.File == "" {
		return
	}
	g.mu.Lock()
	loaded, since, reason, mass := g.loaded, g.since, g.reason, g.mass
	g.mu.Unlock()
	if !loaded {
		return
	}
	held := heldOnDisk{since, reason, mass, g.allHeld()}
	groups := map[heldGroup]int{}
	for _, rows := range held.rows {
		for _, r := range rows {
			groups[r.group]++
		}
	}
	var err error
	if !maps.Equal(groups, g.savedHeld) || g.savedHeld == nil || mass != g.savedMass {
		if err = writeHeld(g.cfg.File, held); err == nil {
			g.savedHeld, g.savedMass = groups, mass
		}
	}
	g.mu.Lock()
	l, clock, dirty := g.lineage, g.clock, g.dirty && !g.broke && err == nil && g.lineage.revision != 0
	g.dirty = g.dirty && !dirty
	g.mu.Unlock()
	if dirty {
		err = writeLineage(g.cfg.File, l, clock)
		g.written = g.written || err == nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if dirty || err != nil {
		g.fileError = err
	}
	g.dirty = g.dirty || dirty && err != nil
}
