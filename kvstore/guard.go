// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/weft-net/weft/kvstore/schema"
)

// GuardConfig says how a store is guarded. The zero value is usable.
type GuardConfig struct {
	// Cluster is whose store it is.
	Cluster string
	// File keeps the lineage over restarts of the process, and beside it, with ".held" added to the
	// name, the keys of what is held. The directory is made. "": memory only.
	File string
	// Owners says that the store may have owners' rows, an epoch and decisions, as weft's have.
	// Where none was ever seen, as in the store of a Cilium cluster, only limits end a hold.
	Owners bool
	// ReadOnly says that the store is somebody else's: Adopt decides for this process alone, and
	// Reseed is refused.
	ReadOnly bool
	// Limit is how long absent rows of a silent owner are held. Default 20 min. Brief is the same
	// for rows deleted by hand across owners. Default 30 s. Both count only while the store is
	// connected and its heartbeat moves.
	Limit, Brief time.Duration
	// Lease is how long an owner's rows outlive its path to the store. Default DefaultLeaseTTL. If
	// too many owners' leases end within that time, it is the path that is lost, not the owners.
	Lease time.Duration
	// Settle is how long the rows of an owner whose lease has ended stay, so that the first of many is
	// not believed before the others are seen. Default one refresh of a session: a third of Lease, at
	// most 30 s.
	Settle time.Duration
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
	if c.Lease <= 0 {
		c.Lease = DefaultLeaseTTL
	}
	if c.Settle <= 0 {
		c.Settle = min(c.Lease/3, 30*time.Second)
	}
	if c.Heartbeat <= 0 {
		c.Heartbeat = 3 * time.Minute
	}
	return c
}

// generationOnDisk is that of the lineage on disk: of rows that were known before this process.
const generationOnDisk = 1

// ErrReadOnly means that a store is somebody else's, who alone writes to it.
var ErrReadOnly = errors.New("the store is another cluster's, which alone writes to it")

// Guard decides what the absence of rows from one store means: an observed deletion is a fact, an
// absence is only evidence. All watches of one client share it; those that are not given it hold nothing, but
// know by it whether the store is the same. It knows the lineage of the store
// (cluster id, epoch, and the last put that any of them saw), holds what is absent from a store that
// is not proven to be the one that had it, and lets go per owner, as each says that all its rows are
// there again.
type Guard struct {
	cfg GuardConfig
	log *slog.Logger

	turn    chan struct{} // holds one token: judgements happen one after another
	marking chan struct{} // … and so does the marking of sources
	wake    chan struct{} // tells Run to look at held rows

	mu         sync.Mutex
	c          *Client
	mirror     string // the mirror's row of the copy that is read; "": the store itself is
	moved      bool   // the other is read than before
	loaded     bool
	loadError  error // why what an earlier process knew is of no use, to the end of this one
	fileError  error // of the last save
	dirty      bool  // the lineage differs from the file
	lineage    lineage
	generation uint64 // of lineage; 0: none was seen yet
	epochs     uint64 // new ones on one lineage
	continuity Continuity
	checked    time.Time
	renewed    chan struct{} // closed and replaced with each generation

	followers map[*follower]uint64 // generation of each one's rows
	left      map[string]uint64    // the same of rows that no follower has now, by resource
	broke     bool                 // and not yet all rows were judged: the file keeps what was before
	members   map[member]struct{}
	enrolled  map[string]bool                  // resources that were ever watched
	carried   map[string]map[string]carriedRow // held rows that no watch has now, by resource and key
	nodes     map[netip.Addr]string
	words     map[string]ownerWord
	known     map[string]bool     // owners that were heard of; false: it has left in a hold
	nodeKeys  map[string]string   // the row of each node
	expiries  map[string]expiry   // of owners, the last of each
	mass      bool                // so many expired that all of them are held
	adopted   int64               // what was held before this revision goes, somebody decided
	due       map[heldGroup]int64 // the revision by which what is over goes
	weft      bool                // an epoch or an owners' row was seen: owners speak
	holding   bool
	since     time.Time
	reason    string
	rest      time.Time // nothing is marked synced before, after a break with nothing known
	changed   chan struct{}
	clock     time.Duration // runs while the store lives
	online    time.Duration // runs while the store is connected
	ticked    time.Time
	beat      time.Time
	beatMod   int64 // of the heartbeat that was seen last
	beating   *follower

	// Owned by Run.
	savedHeld map[heldGroup]int // what the file of held keys says
	savedMass bool
	written   bool // the lineage is on disk
}

// NewGuard returns a guard of the store behind c. It guards watches that are given it in their
// WatchConfig; Run must run for holds to end. c may be nil where Use names a client later.
func NewGuard(c *Client, cfg GuardConfig, log *slog.Logger) *Guard {
	g := &Guard{
		c: c, cfg: cfg.withDefaults(), log: log,
		turn: make(chan struct{}, 1), marking: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		renewed: make(chan struct{}), changed: make(chan struct{}),
		followers: map[*follower]uint64{}, members: map[member]struct{}{},
	}
	g.emptyLocked()
	if c != nil {
		c.guard.Store(g)
	}
	return g
}

// emptyLocked makes the guard one that has seen nothing.
func (g *Guard) emptyLocked() {
	g.lineage, g.generation, g.epochs, g.continuity, g.weft, g.moved = lineage{}, 0, 0, "", false, false
	g.broke, g.dirty, g.reason, g.rest, g.clock, g.since = false, false, "", time.Time{}, 0, time.Time{}
	g.left, g.enrolled, g.carried = map[string]uint64{}, map[string]bool{}, map[string]map[string]carriedRow{}
	g.nodeKeys, g.expiries, g.mass, g.adopted, g.due = map[string]string{}, map[string]expiry{}, false, 0, nil
	g.nodes, g.words, g.known = map[netip.Addr]string{}, map[string]ownerWord{}, map[string]bool{}
}

// Use says by which client the store is reached from now on. It is called between the runs of Run,
// while no watch of the guard runs; what is known and held stays.
func (g *Guard) Use(c *Client) {
	g.use(c, "")
	c.guard.Store(g)
}

// UseCopy is Use for the store that has a copy of a remote cluster's rows: its one owner is the mirror,
// which its row speaks for. What was known is of another store then, so what the copy lacks of it is held
// until the mirror has said that it is complete.
func (g *Guard) UseCopy(c *Client, cluster string) { g.use(c, schema.MirrorsPrefix+cluster) }

func (g *Guard) use(c *Client, mirror string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.moved = g.moved || g.generation != 0 && g.mirror != mirror
	g.c, g.mirror, g.beating = c, mirror, nil
}

// Forget makes the guard one that has never seen the store, on disk too: its rows are gone on
// purpose. It is called while neither Run nor a watch of the guard runs.
func (g *Guard) Forget() error {
	g.mu.Lock()
	g.emptyLocked()
	g.loaded, g.loadError, g.fileError = true, nil, nil
	g.savedHeld = nil
	g.mu.Unlock()
	g.refresh()
	if g.cfg.File == "" {
		return nil
	}
	for _, path := range []string{g.cfg.File, heldPath(g.cfg.File)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forget the lineage of %s: %w", g.cfg.Cluster, err)
		}
	}
	return nil
}

func (g *Guard) client() *Client {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.c
}

// loadLocked reads what an earlier process knew, once.
func (g *Guard) loadLocked() {
	if g.loaded {
		return
	}
	g.loaded = true
	l, clock, ok, err := readLineage(g.cfg.File)
	if err != nil {
		g.loadError = err
		g.log.Warn("lineage on disk is of no use, the store is taken as it is", "error", err)
	}
	if !ok {
		return
	}
	g.lineage, g.generation, g.clock, g.weft = l, generationOnDisk, clock, l.epoch != ""
	held, err := readHeld(g.cfg.File)
	if err != nil {
		g.loadError = err
		g.log.Warn("held rows on disk are of no use, what is absent from a proven store is taken for deleted", "error", err)
	}
	g.carried, g.since, g.reason, g.mass = held.rows, held.since, held.reason, held.mass
	for _, rows := range held.rows {
		for _, r := range rows {
			if r.group.why == WhyExpired {
				g.expiredLocked(r.group.owner, r.group.revision)
			}
		}
	}
}
