// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// Config says whose numbers an Allocator gives out, and in whose name it uses them.
type Config struct {
	// Cluster and ClusterID are this cluster's, MaxClusters the size of the mesh (0 means 255).
	Cluster     string
	ClusterID   uint32
	MaxClusters uint32
	// Node is this node's primary address. It names the node in references.
	Node netip.Addr
	// SyncInterval is how often all numbers in use are compared with the store. Default 5 min.
	SyncInterval time.Duration
	// LockTTL is how long a lock outlives an agent that dies while it holds it. Default 25 s.
	LockTTL time.Duration
	// Holding tells whether the store is on hold, with a channel that is closed when that changes.
	// Meanwhile no number is given to a set that has none: it waits. Nil means never.
	Holding func() (bool, <-chan struct{})
}

// Validate tells what is wrong with a Config.
func (c Config) Validate() error {
	if err := schema.CheckClusterName(c.Cluster); err != nil {
		return err
	}
	if c.ClusterID != 0 { // 0: a cluster outside any mesh
		if err := schema.CheckClusterID(c.ClusterID, c.MaxClusters); err != nil {
			return err
		}
	}
	if !c.Node.IsValid() {
		return errors.New("node: no address")
	}
	return nil
}

// ExhaustedError means that no number of the cluster's range is free. Numbers in use are freed by
// the collector, and rest for a day.
type ExhaustedError struct {
	Cluster     string
	First, Last ID
}

// Error implements error.
func (e *ExhaustedError) Error() string {
	return fmt.Sprintf("identity numbers %d to %d of cluster %s are all in use or at rest", uint32(e.First), uint32(e.Last), e.Cluster)
}

// Holding is a number that this node uses.
type Holding struct {
	ID ID
	// Users is how often it was allocated less how often it was released.
	Users int
}

// Allocator gives numbers to label sets, the same one to the same set on every node of the cluster,
// and keeps a reference to each in the store while it is used here:
//
//	cilium/state/identities/v1/id/<number>            labels   the master key, unleased
//	cilium/state/identities/v1/value/<labels>/<node>  number   the reference, under the node's lease
//
// A number that is new is made by one transaction that writes both, if no reference and no lock to
// the labels stands there. What the store loses while it is used is written again.
type Allocator struct {
	cfg      Config
	client   *kvstore.Client
	session  *kvstore.Session
	batch    *batch
	known    *knownNumbers
	restings schema.Codec[schema.IdentityKey, schema.Resting]
	fixed    map[string]ID // reserved and well-known sets
	held     *state.Table[string, Holding]
	log      *slog.Logger
	wake     chan struct{} // holds one token when pending is not empty

	mu      sync.Mutex
	uses    map[string]*use      // by label string
	byID    map[ID]string        // label strings of the uses that have a number
	pending map[string]struct{}  // label strings to settle
	unseen  map[string]struct{}  // label strings whose number stands in the store and not yet in the mirror
	doubts  map[string]time.Time // when label strings had a transaction that may or may not have been applied
	waits   map[string]*Wait     // label strings that wait for the end of a hold
	astray  bool                 // references on our lease may be of sets that are not used
	stats   Stats
}

// use is a label set that is used, or was until a moment ago.
type use struct {
	text string
	turn chan struct{} // holds one token; whoever has taken it may work on the set in the store

	// Guarded by Allocator.mu. id and lease change only in the hands of the one whose turn it is.
	id    ID // Unknown: not allocated yet
	users int
}

// Stats counts what an Allocator did since it was made.
type Stats struct {
	// Created numbers were new, Joined ones had been given to the set before.
	Created, Joined uint64
	// Locked allocations went the way through the lock, because a peer had it.
	Locked uint64
	// Recreated master keys had vanished while they were used.
	Recreated uint64
	// Renumbered sets had to take another number, because the store said so.
	Renumbered uint64
	// Taken numbers stood for other labels when this node wanted them back, or while it used them;
	// Rivals are sets that had an older number too, and moved to it.
	Taken, Rivals uint64
	// Exhausted allocations failed because no number was free.
	Exhausted uint64
	// Waiting sets need a new number and wait for the end of a hold.
	Waiting int
	// Pending sets wait to be written or removed; LastError is why, if it did not work.
	Pending   int
	LastError error
}

// NewAllocator returns an Allocator. References stand under the session's lease. known is the mirror of all numbers of this cluster; while it
// has not synced, and while Run does not run, new sets wait.
func NewAllocator(
	cfg Config, client *kvstore.Client, session *kvstore.Session, known *state.Table[schema.IdentityKey, string], log *slog.Logger,
) (*Allocator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("identity allocator: %w", err)
	}
	if cfg.SyncInterval <= 0 {
		cfg.SyncInterval = 5 * time.Minute
	}
	if cfg.LockTTL <= 0 {
		cfg.LockTTL = 25 * time.Second
	}
	fixed := WellKnown(cfg.Cluster)
	for id := Host; int(id) < len(reservedNames); id++ {
		fixed[ReservedLabels(id).String()] = id
	}
	a := &Allocator{
		cfg: cfg, client: client, session: session, log: log, fixed: fixed,
		restings: schema.Restings(schema.Scope{Cluster: cfg.Cluster, ClusterID: cfg.ClusterID, MaxClusters: cfg.MaxClusters}),
		known:    newKnownNumbers(cfg, known),
		held:     state.NewTable[string]("held identities", state.Equal[Holding]),
		wake:     make(chan struct{}, 1),
		uses:     map[string]*use{},
		byID:     map[ID]string{},
		pending:  map[string]struct{}{},
		unseen:   map[string]struct{}{},
		doubts:   map[string]time.Time{},
		waits:    map[string]*Wait{},
	}
	a.known.usedHere = func(id ID) bool { return a.usedByOthers(id, "") }
	a.batch = newBatch(client, a.settleLate, a.doubt)
	return a, nil
}

// Held returns the numbers in use on this node, by label string. A number can change: when the store
// turns out to hold another truth (see Stats.Renumbered), so users must follow the table.
func (a *Allocator) Held() *state.Table[string, Holding] { return a.held }

// Stats returns the counters.
func (a *Allocator) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.stats
	s.Pending, s.Waiting = len(a.pending), len(a.waits)
	return s
}

// Allocate returns the number of a label set and counts one more user of it; each success needs one
// Release. It waits for the store if the set is not in use here yet, and for the end of a hold if it
// has no number yet; a ctx that ends during the latter yields an error that is ErrHolding too.
// Exhaustion is an *ExhaustedError. Sets with a reserved or well-known number have it without the
// store.
func (a *Allocator) Allocate(ctx context.Context, labels Labels) (ID, error) {
	return a.Restore(ctx, labels, Unknown)
}

// Restore is Allocate for a set that had a number before a restart: if the store knows none for it
// any more, it gets that one again, provided that it is free.
func (a *Allocator) Restore(ctx context.Context, labels Labels, old ID) (ID, error) {
	text := labels.String()
	if id, ok := a.fixed[text]; ok {
		return id, nil
	}
	if err := a.check(labels); err != nil {
		return Unknown, fmt.Errorf("allocate identity %s: %w", text, err)
	}
	u, id := a.addUser(text)
	if id != Unknown {
		return id, nil
	}
	id, err := a.number(ctx, u, old)
	if err != nil {
		a.removeUser(text)
		return Unknown, fmt.Errorf("allocate identity %s: %w", text, err)
	}
	return id, nil
}

// check refuses sets that peers would not accept.
func (a *Allocator) check(labels Labels) error {
	if err := labels.Validate(); err != nil {
		return err
	}
	if !labels.Has(Label{SourceKubernetes, ClusterKey, a.cfg.Cluster}) {
		return fmt.Errorf("labels lack %s:%s=%s", SourceKubernetes, ClusterKey, a.cfg.Cluster)
	}
	// etcd takes keys of any length, but every peer reads them.
	if n := len(labels.String()); n > 64<<10 {
		return fmt.Errorf("labels have %d bytes, more than %d", n, 64<<10)
	}
	return nil
}

// Release takes one user of a label set away. After the last one the reference is removed from the
// store, in Run. It never waits.
func (a *Allocator) Release(labels Labels) {
	text := labels.String()
	if _, ok := a.fixed[text]; !ok {
		a.removeUser(text)
	}
}

// addUser returns the use of a set and the number it has.
func (a *Allocator) addUser(text string) (*use, ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	u := a.useLocked(text)
	u.users++
	a.showLocked(u)
	return u, u.id
}

func (a *Allocator) useLocked(text string) *use {
	u := a.uses[text]
	if u == nil {
		u = &use{text: text, turn: make(chan struct{}, 1)}
		u.turn <- struct{}{}
		a.uses[text] = u
	}
	return u
}

func (a *Allocator) removeUser(text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	u := a.uses[text]
	if u == nil || u.users == 0 {
		return // released more often than allocated
	}
	u.users--
	a.showLocked(u)
	if u.users == 0 {
		a.settleLocked(text)
	}
}

// showLocked puts a use into the table of those held.
func (a *Allocator) showLocked(u *use) {
	if u.id != Unknown {
		a.held.Put("local", 0, u.text, Holding{ID: u.id, Users: u.users})
	}
}

// number returns the number of a use, and gets it from the store if it has none. It waits for the
// end of a hold without the turn: the set must be able to be settled meanwhile.
func (a *Allocator) number(ctx context.Context, u *use, old ID) (ID, error) {
	for {
		seen := a.known.changes()
		id, err := a.numberNow(ctx, u, old)
		if !errors.Is(err, ErrHolding) {
			return id, err
		}
		if err := a.waitHold(ctx, u.text, seen); err != nil {
			return Unknown, err
		}
	}
}

// numberNow is number, and fails with ErrHolding where that would wait for the end of a hold.
func (a *Allocator) numberNow(ctx context.Context, u *use, old ID) (ID, error) {
	if err := a.waitReady(ctx); err != nil {
		return Unknown, err
	}
	select {
	case <-u.turn:
	case <-ctx.Done():
		return Unknown, ctx.Err()
	}
	defer func() { u.turn <- struct{}{} }()
	if id := a.idOf(u); id != Unknown {
		return id, nil
	}
	id, err := a.obtain(ctx, u.text, old)
	if err != nil {
		return Unknown, err
	}
	a.setID(u, id)
	return id, nil
}

func (a *Allocator) idOf(u *use) ID {
	a.mu.Lock()
	defer a.mu.Unlock()
	return u.id
}

func (a *Allocator) setID(u *use, id ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setIDLocked(u, id)
}

func (a *Allocator) setIDLocked(u *use, id ID) {
	if a.byID[u.id] == u.text {
		delete(a.byID, u.id)
	}
	u.id = id
	if id == Unknown {
		a.held.Delete("local", 0, u.text)
		return
	}
	a.byID[id] = u.text
	a.showLocked(u)
}

// Run keeps the references and master keys of what is in use in the store, and removes those of what
// is not, until ctx ends. It returns only then.
func (a *Allocator) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.followKnown(ctx) })
	g.Go(func() error { return a.followLease(ctx) })
	g.Go(func() error { return a.followHold(ctx) })
	g.Go(func() error { return a.settleAll(ctx) })
	g.Go(func() error { return a.batch.run(ctx) })
	return g.Wait()
}
