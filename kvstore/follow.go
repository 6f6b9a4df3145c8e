// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// refusedPause is about how long a follower of somebody else's store waits that may not read.
const refusedPause = time.Minute

// event is one change of one key.
type event struct {
	KV
	Deleted bool
}

// sink is told what stands under a prefix. Its methods are called by one goroutine.
type sink interface {
	// page is a part of a list. restart: it is the first part.
	page(kvs []KV, restart bool)
	// listed ends a list: what was not in it did not exist at the revision. The context is that of the
	// follower's run.
	listed(ctx context.Context, revision int64, continuity Continuity)
	// events are changes in the order they happened, whole revisions. The context is that of the
	// follower's run.
	events(ctx context.Context, evs []event)
	// confirmed says that at the time everything up to the revision had been delivered.
	confirmed(revision int64, at time.Time)
}

// followConfig says how a prefix is followed. All fields are set.
type followConfig struct {
	prefix     string
	exact      bool // prefix is one key
	pageSize   int
	gap        int64         // revisions after which a list is cheaper than a replay
	progress   time.Duration // how often the store is asked how far it is
	silence    time.Duration // a stream that says nothing for so long is given up
	minBackoff time.Duration
	maxBackoff time.Duration
}

// errOrder is an event at or before a revision that was delivered already.
var errOrder = errors.New("the store sent an event of a revision that was delivered already")

// errGap says that a list is needed; it is no failure.
var errGap = errors.New("too many changes were missed to replay them")

// errAgain is a list that somebody asked for; nothing is wrong with the connection.
var errAgain = fmt.Errorf("a list is asked for: %w", errGap)

// follower keeps a sink equal to what stands under a prefix. It is one loop: list at revision R,
// watch from R+1, and on any error go round again. The stream is its own and not the client
// library's watcher, which resumes by itself and without a word over a store that was wiped.
//
//	         ┌────────────── error, gap, not proven ─────────────┐
//	         ▼                                                   │
//	start ─▶ list ─▶ open stream at R+1 ─▶ prove continuity ─▶ deliver
//	                     ▲                                       │
//	                     └── error, revision and witness known ──┘
//
// Continuity is proven after the stream is open: the store that answers then is not older than
// the one behind the stream.
type follower struct {
	c    *Client
	cfg  followConfig
	sink sink
	log  *slog.Logger
	// guard judges lists of the store together with its other followers. Nil: each for itself.
	guard *Guard
	// foreign says that the store is somebody else's, who may keep the prefix from us for good.
	foreign bool
	// renew returns a channel that is closed when the prefix has to be listed once more. Nil: never.
	renew func() <-chan struct{}
	// again holds a token when somebody asks for another list.
	again chan struct{}
	// hurry holds a token when somebody waits to hear how far the store is.
	hurry chan struct{}

	// Owned by run.
	relist     <-chan struct{}
	generation uint64 // of the witness's lineage that the sink's rows are of; 0: it has none
	broken     bool   // found since the last list
	behind     bool   // the member that the stream is with has yet to see what is known
	lineage    lineage
	continuity Continuity // of the store that answered last, told with the next list
	revision   int64      // delivered up to here; 0: list first

	mu sync.Mutex
	st followStatus
}

// followStatus is what a follower knows about itself.
type followStatus struct {
	connected   bool
	synced      bool // listed at least once
	revision    int64
	confirmed   time.Time
	clusterID   uint64
	epoch       string
	continuity  Continuity // of the last list or resumption
	lists       uint64
	resumes     uint64
	lastError   error
	lastErrorAt time.Time
}

// witness is the guard of the store, which need not be the one that judges the lists. Nil: none.
func (f *follower) witness() *Guard {
	if f.guard != nil {
		return f.guard
	}
	return f.c.guard.Load()
}

func (f *follower) status() followStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.st
}

func (f *follower) update(change func(*followStatus)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.st)
}

// askNow lets the store be asked how far it is, without waiting for the answer.
func (f *follower) askNow() {
	select {
	case f.hurry <- struct{}{}:
	default:
	}
}

// run follows until ctx ends.
func (f *follower) run(ctx context.Context) error {
	pause := backoff{min: f.cfg.minBackoff, max: f.cfg.maxBackoff}
	f.continuity = ContinuityFirst
	f.trace(ctx)
	if f.guard != nil {
		defer f.guard.join(f)()
	}
	for {
		listed := f.revision == 0
		err := f.round(ctx, listed, pause.reset)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errGap) && !listed || errors.Is(err, errAgain) {
			continue
		}
		was := false
		f.update(func(s *followStatus) {
			was = s.connected
			s.connected, s.lastError, s.lastErrorAt = false, err, time.Now()
		})
		level := slog.LevelDebug
		if was {
			level = slog.LevelInfo
		}
		f.log.Log(ctx, level, "watch interrupted", "prefix", f.cfg.prefix, "error", err)
		if f.foreign && refused(err) {
			// Rights in somebody else's store change rarely, and all of our nodes ask.
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(refusedPause/2 + rand.N(refusedPause)):
			}
			continue
		}
		if !pause.pause(ctx, f.c) {
			return nil
		}
	}
}

// round lists if told so, then delivers until an error.
func (f *follower) round(ctx context.Context, list bool, healthy func()) error {
	if list {
		if err := f.list(ctx); err != nil {
			return err
		}
	}
	err := f.watch(ctx, list, healthy)
	if errors.Is(err, errOrder) || errors.Is(err, ErrStoreChanged) || errors.Is(err, errGap) {
		f.revision = 0
	}
	return err
}

// covers tells whether a key is one of those that are followed.
func (f *follower) covers(key string) bool {
	if f.cfg.exact {
		return key == f.cfg.prefix
	}
	return strings.HasPrefix(key, f.cfg.prefix)
}

func (f *follower) list(ctx context.Context) error {
	began := time.Now()
	if f.renew != nil {
		f.relist = f.renew()
	}
	generation := f.generation
	if w := f.witness(); w != nil && f.guard == nil {
		generation = w.present() // before the list, as the epoch: what changes in between is met later
	}
	// The epoch is read before the list: one that changes in between is met by prove.
	epoch, _, _, err := readEpoch(ctx, f.c)
	if err != nil {
		return err
	}
	next := lineage{epoch: epoch}
	first := true
	rev, id, err := f.c.pages(ctx, f.cfg.prefix, ListOptions{PageSize: f.cfg.pageSize, exact: f.cfg.exact}, func(page []KV) {
		for _, kv := range page {
			next.see(event{KV: kv})
		}
		f.sink.page(page, first)
		first = false
	})
	if err != nil {
		return err
	}
	next.clusterID = id
	if f.guard != nil {
		// After the list: the store that is judged is not older than the one that was listed.
		next.revision, next.witness.at = rev, rev
		if f.continuity, generation, err = f.guard.judge(ctx, f, next, f.broken); err != nil {
			return err
		}
		next.revision = 0
	}
	f.lineage, f.revision, f.generation, f.broken = next, rev, generation, false
	f.sink.listed(ctx, rev, f.continuity)
	f.sink.confirmed(rev, began)
	f.update(func(s *followStatus) {
		s.synced, s.revision, s.confirmed = true, rev, began
		s.clusterID, s.epoch, s.continuity = id, epoch, f.continuity
		s.lists++
	})
	if f.guard != nil {
		f.guard.settled(f, generation)
	}
	return nil
}

// watch opens a stream and delivers what it says until an error. listed says that a list was just
// made, so that there is nothing to resume.
func (f *follower) watch(ctx context.Context, listed bool, healthy func()) error {
	s, err := openStream(ctx, f.c, f.cfg.prefix, f.cfg.exact, f.revision, f.cfg.silence)
	if err != nil {
		return err
	}
	defer s.close()
	f.opened(s.created)
	changed := func() error {
		f.continuity, f.broken = ContinuityBroken, true
		return fmt.Errorf("watch %s: %w (cluster %x at revision %d, was %x at %d)", f.cfg.prefix,
			ErrStoreChanged, s.created.ClusterId, s.created.Revision, f.lineage.clusterID, f.revision)
	}
	if s.created.ClusterId != f.lineage.clusterID {
		return changed()
	}
	proof := f.lineage
	// A member may be behind the one that was asked before; a store as a whole is not.
	if f.behind = s.created.Revision < f.revision; f.behind {
		proof.revision = f.revision
	}
	if f.guard != nil {
		proof.epoch = "" // a new one alone is no other store: the guard lets everybody list for it
	}
	w := f.witness()
	if w != nil {
		proof.gone = w.tombstoneOf(proof)
	}
	if f.continuity, err = proof.prove(ctx, f.c, f.revision); err != nil {
		return err
	}
	switch {
	case f.continuity == ContinuityBroken:
		return changed()
	case f.behind && f.continuity == ContinuityUnproven:
		return errGap
	case !listed && (f.continuity == ContinuityUnproven || s.created.Revision-f.revision > f.cfg.gap):
		return errGap
	case w != nil && !listed:
		// What was seen last is often another follower's: an old copy may have all that is ours.
		switch found, err := w.confirm(ctx, f); {
		case err != nil:
			return err
		case found == ContinuityBroken:
			return changed()
		case found == ContinuityUnproven:
			return f.outdated()
		}
	}
	return f.deliver(ctx, s, func() {
		f.update(func(st *followStatus) {
			if !listed {
				st.resumes++
				st.continuity = f.continuity
			}
			st.connected, st.lastError = true, nil
		})
		healthy()
	})
}

// catchUp is how often etcd looks after watches that are behind. It answers no question about
// progress before, and leaves it unanswered.
const catchUp = 100 * time.Millisecond

// deliver passes on what the stream says and keeps asking how far it is. It calls begun after the
// first word: a watch that was confirmed may still turn out to be of a compacted revision.
func (f *follower) deliver(ctx context.Context, s *stream, begun func()) error {
	ask := time.NewTicker(min(f.cfg.progress, catchUp))
	defer ask.Stop()
	spoke := false
	silent := time.NewTimer(f.cfg.silence)
	defer silent.Stop()
	s.askProgress()
	var moved <-chan struct{}
	if w := f.witness(); w != nil {
		moved = w.newer(f.generation)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
			return f.outdated()
		case <-f.relist:
			return f.outdated()
		case <-f.again:
			return errAgain
		case <-f.hurry:
			s.askProgress()
		case <-ask.C:
			s.askProgress()
		case <-silent.C:
			return fmt.Errorf("watch %s: %w", f.cfg.prefix,
				&EndpointError{strings.Join(f.c.cfg.Endpoints, ","), ReasonSilent, fmt.Errorf("no word for %s", f.cfg.silence)})
		case m := <-s.messages:
			if m.err != nil {
				return m.err
			}
			select {
			case <-moved: // both were ready: what another store says confirms nothing
				return f.outdated()
			default:
			}
			silent.Reset(f.cfg.silence)
			if m.clusterID != f.lineage.clusterID {
				f.continuity, f.broken = ContinuityBroken, true
				return fmt.Errorf("watch %s: %w", f.cfg.prefix, ErrStoreChanged)
			}
			if err := f.apply(ctx, m, s.after); err != nil {
				return err
			}
			if !spoke {
				spoke = true
				ask.Reset(f.cfg.progress)
				begun()
			}
		}
	}
}

// outdated asks for a list because somebody found that the rows are of another lineage, or asks for one.
func (f *follower) outdated() error {
	return fmt.Errorf("watch %s: the lineage of the store has changed: %w", f.cfg.prefix, errGap)
}

// apply takes over one message of a stream that was opened after a revision.
func (f *follower) apply(ctx context.Context, m message, after int64) error {
	now, before := time.Now(), f.revision
	if n := len(m.events); n > 0 {
		m.events = slices.DeleteFunc(m.events, func(ev event) bool { return ev.ModRevision <= after })
		if len(m.events) == 0 {
			return nil // only what was known
		}
	}
	if len(m.events) == 0 {
		switch {
		case m.revision >= f.revision:
			f.behind = false
		case f.behind:
			return nil
		default:
			return fmt.Errorf("watch %s: %w", f.cfg.prefix, errOrder)
		}
		f.revision = m.revision
	} else {
		for _, ev := range m.events {
			if ev.ModRevision <= f.revision {
				return fmt.Errorf("watch %s: %w", f.cfg.prefix, errOrder)
			}
			f.lineage.see(ev)
		}
		// Not the header's revision: while the store catches up, that is ahead of the events.
		f.revision = m.events[len(m.events)-1].ModRevision
		f.sink.events(ctx, m.events)
	}
	switch w := f.witness(); {
	case f.guard != nil:
		f.guard.saw(f, m.events, before, f.revision)
	case w != nil && f.generation == 0:
		f.generation = w.present()
	}
	f.sink.confirmed(f.revision, now)
	f.update(func(st *followStatus) { st.revision, st.confirmed = f.revision, now })
	return nil
}
