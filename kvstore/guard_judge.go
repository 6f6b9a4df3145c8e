// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"time"
)

// judge says of what lineage the store is that a follower has just listed, and under which
// generation its rows are. next is what the list showed, broken that the follower found another store
// since its last list.
func (g *Guard) judge(ctx context.Context, f *follower, next lineage, broken bool) (Continuity, uint64, error) {
	select {
	case g.turn <- struct{}{}:
	case <-ctx.Done():
		return "", 0, ctx.Err()
	}
	defer func() { <-g.turn }()

	g.mu.Lock()
	g.loadLocked()
	known, generation := g.lineage, g.generation
	mine, moved := g.followers[f], g.moved
	g.mu.Unlock()

	found := ContinuityFirst
	switch {
	case generation == 0:
	case moved:
		found = ContinuityUnproven
	case broken && mine == generation, next.clusterID != known.clusterID:
		found = ContinuityBroken
	case known.witness.key == "" && (known.epoch == "" || known.epoch == next.epoch):
		// Nothing was ever seen that could be missed; the revision is looked at all the same.
		found = ContinuityProven
		if next.revision < known.revision && mine == 0 {
			// Or the list was made before another follower's, and is judged after it: ask once more.
			_, id, newest, err := readEpoch(ctx, f.c)
			if err != nil {
				return "", 0, err
			}
			if id != 0 && newest < known.revision {
				found = ContinuityBroken
			}
		}
	default:
		if generation > generationOnDisk {
			// The witness is the last put that this process saw, so it tells more than an epoch that
			// somebody wrote meanwhile. One from disk may be older than what was seen.
			known.epoch = ""
		}
		known.gone = g.tombstoneOf(known)
		var err error
		if found, err = known.prove(ctx, f.c, known.witness.at); err != nil {
			return "", 0, err
		}
	}

	g.mu.Lock()
	g.checked = time.Now()
	switch {
	case found == ContinuityFirst:
		g.lineage, g.generation, g.dirty = next, generationOnDisk+1, true
		g.continuity, g.weft = ContinuityFirst, next.epoch != ""
	case found == ContinuityProven:
		g.extendLocked(f, next)
		if g.continuity == "" {
			g.continuity = ContinuityProven
		}
	case moved:
		g.moved = false
		g.breakLocked(found, next, "rows are read from another store than before")
	default:
		g.breakLocked(found, next, "the store is not proven to be the one that was known: "+string(found))
	}
	result := found
	switch {
	case mine != 0 && mine != g.generation && (found == ContinuityProven || found == ContinuityFirst):
		// Its rows are of a lineage that somebody else found ended, or that nobody knows.
		result = ContinuityUnproven
		if g.continuity == ContinuityBroken {
			result = ContinuityBroken
		}
	case mine == 0 && result == ContinuityProven:
		result = ContinuityFirst
	}
	if g.continuity != found && mine == g.generation {
		g.continuity = found
	}
	generation = g.generation
	g.mu.Unlock()
	g.refresh()
	return result, generation, nil
}

// tombstoneOf is the deletion that the store has to know of, if there is one.
func (g *Guard) tombstoneOf(l lineage) tombstone {
	if g.cfg.ReadOnly {
		return tombstone{} // a remote's API servers do not all tell of a deletion at one revision
	}
	return l.gone
}

// confirm says whether the store that a follower is about to resume over, by its own proof, is the one that
// the followers of the same lineage saw: ContinuityBroken if not, ContinuityUnproven if the guard knows a newer
// lineage than the follower, else ContinuityProven. The error is one of the connection.
func (g *Guard) confirm(ctx context.Context, f *follower) (Continuity, error) {
	g.mu.Lock()
	known, other := g.lineage, g.c != f.c
	// What listed before the guard did has no generation yet.
	same := f.generation == g.generation || f.guard == nil && f.generation == 0
	g.mu.Unlock()
	switch {
	case f.guard == nil && other:
		return ContinuityProven, nil // the guard is of another store now
	case !same:
		return ContinuityUnproven, nil
	}
	known.epoch, known.gone = "", g.tombstoneOf(known)
	if known.witness.mod <= f.lineage.witness.mod && known.gone.mod <= f.lineage.gone.mod {
		return ContinuityProven, nil // its own proof was of the same
	}
	found, err := known.prove(ctx, f.c, known.witness.at)
	switch {
	case err != nil && (g.cfg.ReadOnly || refused(err)):
		// A replica that is behind and has lost its etcd, or rights that were taken back, for keys that
		// are not this follower's: its own proof has to do.
		g.log.Debug("the last change that was seen cannot be asked for", "cluster", g.cfg.Cluster, "prefix", f.cfg.prefix, "error", err)
		return ContinuityProven, ctx.Err()
	case err != nil:
		return "", err
	case found == ContinuityBroken:
		return ContinuityBroken, nil
	}
	return ContinuityProven, nil
}

// settled says that what a follower listed has been taken over: it waits for nothing any more.
func (g *Guard) settled(f *follower, generation uint64) {
	g.mu.Lock()
	g.followers[f] = generation
	delete(g.left, resourceOf(f.cfg.prefix))
	g.mu.Unlock()
	g.refresh()
}

// breakLocked begins a new lineage: every follower lists once more.
func (g *Guard) breakLocked(how Continuity, next lineage, reason string) {
	g.log.Warn("lineage of the store ended, absent rows are held", "cluster", g.cfg.Cluster, "reason", reason)
	if g.generation == generationOnDisk && how == ContinuityBroken {
		g.rest = time.Now().Add(g.cfg.Brief) // nobody can say yet what is missing
	}
	g.lineage, g.continuity, g.reason, g.dirty, g.broke = next, how, reason, true, true
	g.generation++
	g.words, g.adopted, g.due = map[string]ownerWord{}, 0, nil
	g.weft = g.weft || next.epoch != ""
	close(g.renewed)
	g.renewed = make(chan struct{})
}

// extendLocked takes over what a follower's list of the same lineage showed.
func (g *Guard) extendLocked(f *follower, next lineage) {
	g.lineage.revision = max(g.lineage.revision, next.revision)
	if g.lineage.epoch == "" {
		g.lineage.epoch = next.epoch
	}
	g.weft = g.weft || next.epoch != ""
	w, listed := &g.lineage.witness, next.witness
	switch {
	case listed.mod > w.mod:
		*w = listed
	case listed.mod == w.mod && listed.key == w.key:
		if !w.deleted {
			w.at = max(w.at, listed.at)
		}
	case listed.mod == w.mod:
		// Of one transaction. The one that was seen later to be there can be asked for longer.
		if w.deleted || listed.at >= w.at {
			*w = listed
		}
	case f.covers(w.key) && next.revision >= w.mod:
		w.deleted = true // before the list: no event will tell
	}
	g.dirty = true
}

// saw takes over what a follower was told about its keys, after one revision and up to another.
func (g *Guard) saw(f *follower, evs []event, after, revision int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.generation != g.generation {
		return
	}
	for _, ev := range evs {
		g.lineage.see(ev)
	}
	// Only who was told all that happened to the witness since: who is further already may know of
	// its end.
	if w := &g.lineage.witness; f.covers(w.key) && after <= w.at {
		w.at = max(w.at, revision)
	}
	g.lineage.revision = max(g.lineage.revision, revision)
	g.dirty = true
}

// present is the generation of what is known of the store; 0: nothing.
func (g *Guard) present() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.generation
}

// newer returns a channel that is closed once there is a lineage of another generation.
func (g *Guard) newer(generation uint64) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if generation == g.generation || generation == 0 {
		return g.renewed
	}
	closed := make(chan struct{})
	close(closed)
	return closed
}

// join makes a follower known until the returned function is called.
func (g *Guard) join(f *follower) (leave func()) {
	g.mu.Lock()
	g.followers[f] = f.generation
	g.mu.Unlock()
	return func() {
		g.mu.Lock()
		if generation := g.followers[f]; generation != 0 {
			g.left[resourceOf(f.cfg.prefix)] = generation
		}
		delete(g.followers, f)
		g.mu.Unlock()
		g.refresh()
	}
}

// expect says that there are rows of an earlier process under a prefix, which its watch will judge.
func (g *Guard) expect(prefix string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r := resourceOf(prefix); g.left[r] == 0 {
		g.left[r] = generationOnDisk
	}
}

// leftBy returns of which generation the rows are that an earlier watch of a prefix has left.
func (g *Guard) leftBy(prefix string) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if generation := g.left[resourceOf(prefix)]; generation != 0 {
		return generation
	}
	return generationOnDisk
}

// unjudgedLocked says whether there are rows of another lineage than the present one.
func (g *Guard) unjudgedLocked() bool {
	if g.generation <= generationOnDisk {
		return false
	}
	for _, generation := range g.followers {
		if generation != 0 && generation != g.generation {
			return true
		}
	}
	for _, generation := range g.left {
		if generation != g.generation {
			return true
		}
	}
	return false
}
