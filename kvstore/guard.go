// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"log/slog"
	"math"
	"net/netip"
	"sync"
	"time"
)

// GuardConfig says how a store is guarded. The zero value is usable.
type GuardConfig struct {
	// Cluster is whose store it is, for status.
	Cluster string
	// File keeps the lineage over restarts of the process. "": memory only.
	File string
	// Owners says that the store has owners' rows, an epoch and decisions: it is weft's. Without,
	// only limits end a hold.
	Owners bool
	// Limit is how long absent rows of a silent owner are held. Default 20 min. Brief is the same
	// for rows deleted by hand across owners. Default 30 s. Both count only while the store is
	// connected and its heartbeat moves.
	Limit, Brief time.Duration
	// Heartbeat is how old the last heartbeat may be. Default 3 min.
	Heartbeat time.Duration
	// Follow says how the guard's own keys are followed. Its Source and Guard are not used.
	Follow WatchConfig
}

func (c GuardConfig) withDefaults() GuardConfig {
	if c.Limit <= 0 {
		c.Limit = 20 * time.Minute
	}
	if c.Brief <= 0 {
		c.Brief = 30 * time.Second
	}
	if c.Heartbeat <= 0 {
		c.Heartbeat = 3 * time.Minute
	}
	return c
}

// generationOnDisk is that of the lineage on disk: of rows that were known before this process.
const generationOnDisk = 1

// generationNone is that of no lineage that is or will be.
const generationNone = math.MaxUint64

// Guard decides what the absence of rows from one store means: an observed deletion is a fact, an
// absence is only evidence. All watches of one client share it. It knows the lineage of the store
// (cluster id, epoch, and the last put that any of them saw), holds what is absent from a store that
// is not proven to be the one that had it, and lets go per owner, as each says that all its rows are
// there again.
type Guard struct {
	c   *Client
	cfg GuardConfig
	log *slog.Logger

	turn    chan struct{} // holds one token: judgements happen one after another
	marking chan struct{} // … and so does the marking of sources
	wake    chan struct{} // tells Run to look at held rows

	mu         sync.Mutex
	loaded     bool
	fileError  error
	dirty      bool // the lineage differs from the file
	lineage    lineage
	generation uint64 // of lineage; 0: none was seen yet
	epochs     uint64 // new ones on one lineage
	continuity Continuity
	checked    time.Time
	renewed    chan struct{} // closed and replaced with each generation

	followers map[*follower]uint64 // generation of each one's rows
	left      map[string]uint64    // the same of those that ended, by prefix
	broke     bool                 // and not yet all rows were judged: the file keeps what was before
	members   map[member]struct{}
	nodes     map[netip.Addr]string
	words     map[string]ownerWord
	known     map[string]bool
	holding   bool
	since     time.Time
	reason    string
	rest      time.Time // nothing is marked synced before, after a break with nothing known
	changed   chan struct{}
	clock     time.Duration // runs while the store lives
	ticked    time.Time
	beat      time.Time
	beating   *follower
}

// member is a watch as its guard sees it.
type member interface {
	mark(holding bool)
	groups(into map[heldGroup]int, kinds map[string]int)
	heldRows(limit int) []HeldRow
	end(gone func(heldGroup) bool) int
	values() ([]KV, error)
	prefix() string
}

// NewGuard returns a guard of the store behind c. It guards watches that are given it in their
// WatchConfig; Run must run for holds to end.
func NewGuard(c *Client, cfg GuardConfig, log *slog.Logger) *Guard {
	return &Guard{
		c: c, cfg: cfg.withDefaults(), log: log,
		turn: make(chan struct{}, 1), marking: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		renewed: make(chan struct{}), changed: make(chan struct{}),
		followers: map[*follower]uint64{}, left: map[string]uint64{}, members: map[member]struct{}{},
		nodes: map[netip.Addr]string{}, words: map[string]ownerWord{}, known: map[string]bool{},
	}
}

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
	mine := g.followers[f]
	g.mu.Unlock()

	found := ContinuityFirst
	switch {
	case generation == 0:
	case broken && mine == generation, next.clusterID != known.clusterID:
		found = ContinuityBroken
	case known.witness.key == "" && (known.epoch == "" || known.epoch == next.epoch):
		// Nothing was ever seen that could be missed; the revision is looked at all the same.
		found = ContinuityProven
		if next.revision < known.revision && mine == 0 {
			found = ContinuityBroken
		}
	default:
		var err error
		if found, err = known.prove(ctx, g.c, known.witness.at); err != nil {
			return "", 0, err
		}
	}

	g.mu.Lock()
	g.checked = time.Now()
	switch {
	case found == ContinuityFirst:
		g.lineage, g.generation, g.dirty = next, generationOnDisk+1, true
		g.continuity = ContinuityFirst
	case found == ContinuityProven:
		g.extendLocked(next)
		if g.continuity == "" {
			g.continuity = ContinuityProven
		}
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

// settled says that what a follower listed has been taken over: it waits for nothing any more.
func (g *Guard) settled(f *follower, generation uint64) {
	g.mu.Lock()
	g.followers[f] = generation
	delete(g.left, f.cfg.prefix)
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
	g.words = map[string]ownerWord{}
	close(g.renewed)
	g.renewed = make(chan struct{})
}

// extendLocked takes over what a list of the same lineage showed.
func (g *Guard) extendLocked(next lineage) {
	g.lineage.revision = max(g.lineage.revision, next.revision)
	if g.lineage.epoch == "" {
		g.lineage.epoch = next.epoch
	}
	if next.witness.mod > g.lineage.witness.mod {
		g.lineage.witness = next.witness
	}
	g.dirty = true
}

// saw takes over what a follower was told about its prefix, up to a revision.
func (g *Guard) saw(prefix string, generation uint64, evs []event, revision int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if generation != g.generation {
		return
	}
	w := &g.lineage.witness
	for _, ev := range evs {
		w.see(ev)
	}
	if len(w.key) >= len(prefix) && w.key[:len(prefix)] == prefix {
		w.at = max(w.at, revision)
	}
	g.lineage.revision = max(g.lineage.revision, revision)
	g.dirty = true
}

// newer returns a channel that is closed once there is a lineage of another generation.
func (g *Guard) newer(generation uint64) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if generation == g.generation {
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
		g.left[f.cfg.prefix] = g.followers[f]
		delete(g.followers, f)
		g.mu.Unlock()
		g.refresh()
	}
}

// leftBy returns of which generation the rows are that an earlier watch of a prefix has left.
func (g *Guard) leftBy(prefix string) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if generation := g.left[prefix]; generation != 0 {
		return generation
	}
	return generationOnDisk
}

// forget makes the rows that a watch leaves those of no lineage that is known.
func (g *Guard) forget(prefix string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left[prefix] = generationNone
}

// enroll makes a watch known until the returned function is called.
func (g *Guard) enroll(m member) (leave func()) {
	g.mu.Lock()
	g.members[m] = struct{}{}
	g.mu.Unlock()
	return func() {
		g.mu.Lock()
		delete(g.members, m)
		g.mu.Unlock()
	}
}

func (g *Guard) membersNow() []member {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]member, 0, len(g.members))
	for m := range g.members {
		out = append(out, m)
	}
	return out
}

func (g *Guard) nodeHas(name string, addr netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.nodes[addr] = name
}

// nodeAt returns the name of the node with an address, or the address.
func (g *Guard) nodeAt(addr netip.Addr) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if name, ok := g.nodes[addr]; ok {
		return name
	}
	return addr.String()
}

// time is how long the store has been seen alive.
func (g *Guard) time() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.clock
}

func (g *Guard) loadLocked() {
	if g.loaded {
		return
	}
	g.loaded = true
	l, ok, err := readLineage(g.cfg.File)
	if err != nil {
		g.fileError = err
		g.log.Warn("lineage on disk is of no use, the store is taken as it is", "error", err)
	}
	if ok {
		g.lineage, g.generation = l, generationOnDisk
	}
}
