// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// StoreConfig says how a table is published. The zero value is usable; see the fields.
type StoreConfig[K comparable, V any] struct {
	// Owns says whether a stored row that is not in the table was written by us or by an earlier
	// life of ours. Such rows are deleted once the table is synced. Nil: nothing is ours but what
	// this store wrote itself.
	Owns func(k K, stored V) bool
	// Enforce writes a row again that somebody else changed. Otherwise the last put wins: the row
	// stays as it is stored, and its outcome is ErrOverwritten until it changes in the table. A
	// row that somebody deleted is always written again.
	Enforce bool
	// Feed is a Watch of the same prefix, so that the store is not watched twice. It must be
	// given before the Watch runs. Nil: the Store follows the prefix by itself.
	Feed Feed
	// Companions are rows of other kinds, written in the same transaction.
	Companions []Companion[K, V]
	// Guard is set for rows of the cluster, whose writer is not the only one that ever wrote them:
	// rows of an earlier life stay while it holds. A node's rows need none.
	Guard *Guard
	// Fence is compared in every transaction, which does nothing if it does not hold: the outcome of
	// its rows is ErrFenced, and they are tried again. It is for writers of which one at a time may
	// write. Nil: none.
	Fence []clientv3.Cmp
	// Follow says how prefixes without a Feed are followed. Its Source is not used.
	Follow WatchConfig
	// MaxOps is the number of writes in one transaction. Default 100; etcd's own limit is 128.
	MaxOps int
	// DeleteAlone gives each row that is deleted a transaction of its own, for readers who take a
	// revision that deletes several for a deletion by hand. Rows that are put still share theirs.
	DeleteAlone bool
	// MinBackoff and MaxBackoff bound the time between two attempts at one row, or at any row
	// while the store gives errors; a connection that comes back ends that. Defaults 50 ms and 5 s.
	MinBackoff, MaxBackoff time.Duration
}

// ErrOverwritten is the outcome of a row that somebody else wrote over.
var ErrOverwritten = errors.New("somebody else wrote over the row")

// ErrFenced is the outcome of rows that were not written because the fence did not hold.
var ErrFenced = errors.New("the right to write has ended")

// StoreStatus is what a store knows about itself.
type StoreStatus struct {
	Prefix      string
	Listed      bool // what is stored is known, so rows are written
	Rows        int  // wanted
	Pending     int  // rows and deletions that are not in the store yet
	Failed      int  // … of these, whose last attempt failed
	Stale       int  // rows of an earlier life, deleted once the table is synced
	Written     uint64
	Deleted     uint64
	Repaired    uint64 // rows written again because somebody else, or a lease, took them away
	LastError   error  // nil after the last write succeeded
	LastErrorAt time.Time
}

// Store keeps what is stored equal to a table: rows are written and deleted as they change, written
// again when a lease is lost or somebody else deletes them, and rows of an earlier life go. Writes
// are gathered into transactions; a row and its companions always share one.
type Store[K comparable, V any] struct {
	c     *Client
	sess  *Session // nil: unleased
	table *state.Table[K, V]
	cfg   StoreConfig[K, V]
	log   *slog.Logger
	parts []*part[K, V] // the codec's rows first, then companions
	feed  feedQueue

	// Owned by Run.
	pause      backoff
	pauseUntil time.Time

	mu     sync.Mutex
	rows   map[K]*item[K, V]
	byKey  map[string]*item[K, V] // who wants a key or wrote it
	actual map[string]KV          // what is stored under the keys of byKey
	dirty  map[*item[K, V]]struct{}
	stale  map[string]KV // rows of an earlier life
	st     StoreStatus
}

// item is one row on its way.
type item[K comparable, V any] struct {
	key      K
	value    V
	revision uint64 // of the table
	deleted  bool   // gone from the table
	want     map[string][]byte
	// wrote are the keys that may be stored because of this row, with the value if an attempt had
	// no answer.
	wrote map[string][]byte
	over  map[string]bool // keys that somebody else wrote over

	done     bool
	stuck    bool // no attempt helps before the row changes
	attempts int
	err      error
	at       time.Time // of the last attempt
	due      time.Time // of the next one
}

// NewStore returns a store that publishes table under the codec's prefix, on the session's lease
// unless that is nil.
func NewStore[K comparable, V any](c *Client, sess *Session, codec schema.Codec[K, V], table *state.Table[K, V],
	cfg StoreConfig[K, V], log *slog.Logger,
) *Store[K, V] {
	if cfg.MaxOps <= 0 {
		cfg.MaxOps = 100
	}
	if cfg.MinBackoff <= 0 {
		cfg.MinBackoff = 50 * time.Millisecond
	}
	if cfg.MaxBackoff <= 0 {
		cfg.MaxBackoff = 5 * time.Second
	}
	s := &Store[K, V]{
		c:      c,
		sess:   sess,
		table:  table,
		cfg:    cfg,
		log:    log,
		pause:  backoff{min: cfg.MinBackoff, max: cfg.MaxBackoff},
		rows:   map[K]*item[K, V]{},
		byKey:  map[string]*item[K, V]{},
		actual: map[string]KV{},
		dirty:  map[*item[K, V]]struct{}{},
		stale:  map[string]KV{},
		st:     StoreStatus{Prefix: codec.Prefix},
	}
	s.feed.wake = make(chan struct{}, 1)
	same := func(k K, v V) map[K]V { return map[K]V{k: v} }
	own := NewCompanion[K, V](codec, same, cfg.Owns, cfg.Feed)
	for i, comp := range append([]Companion[K, V]{own}, cfg.Companions...) {
		p := comp.part
		tap := &partSink{queue: &s.feed, part: i}
		if p.feed != nil {
			p.feed.tap(tap)
		} else {
			p.follow = &follower{c: c, cfg: cfg.Follow.follow(p.prefix), sink: tap, log: log}
		}
		s.parts = append(s.parts, &p)
	}
	return s
}

// Run publishes until ctx ends. What is stored stays: a restart must not take rows away.
func (s *Store[K, V]) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, p := range s.parts {
		if p.follow != nil {
			wg.Go(func() { _ = p.follow.run(ctx) })
		}
	}
	cursor := s.table.Cursor()
	defer cursor.Close()
	var generation uint64
	for ctx.Err() == nil {
		s.takeChanges(cursor)
		s.takeFeed()
		lease, leaseChanged := s.lease()
		if lease.Generation != generation {
			generation = lease.Generation
			s.leaseChanged()
		}
		next := time.Time{}
		if s.listed() && (s.sess == nil || lease.Generation != 0) {
			var more bool
			if next, more = s.flush(ctx, lease, cursor.Synced()); more {
				continue
			}
		}
		if err := s.wait(ctx, cursor, leaseChanged, next); err != nil {
			return fmt.Errorf("publish %s: %w", s.st.Prefix, err)
		}
	}
	return nil
}

// lease is the session's, or that of no session.
func (s *Store[K, V]) lease() (Lease, <-chan struct{}) {
	if s.sess == nil {
		return Lease{}, nil
	}
	return s.sess.Current()
}

// wait returns when the table, the feed or the lease has something new, or at next, unless that is
// zero. A pause of all rows ends when the connection is back.
func (s *Store[K, V]) wait(ctx context.Context, cursor *state.Cursor[K, V], lease <-chan struct{}, next time.Time) error {
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var timer <-chan time.Time
	if !next.IsZero() {
		t := time.NewTimer(time.Until(next))
		defer t.Stop()
		timer = t.C
	}
	wg.Go(func() {
		defer cancel()
		select {
		case <-wctx.Done():
		case <-s.feed.wake:
		case <-lease:
		case <-timer:
		}
	})
	back := false
	if time.Now().Before(s.pauseUntil) {
		wg.Go(func() {
			if s.c.returned(wctx) {
				back = true
				cancel()
			}
		})
	}
	err := cursor.Wait(wctx)
	woken := wctx.Err() != nil
	cancel()
	wg.Wait()
	if back {
		s.unpause()
	}
	if err != nil && !woken {
		return err
	}
	return nil
}

// Status returns what the store knows about itself.
func (s *Store[K, V]) Status() StoreStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.st
	st.Listed = s.listedLocked()
	st.Pending = len(s.dirty)
	st.Stale = len(s.stale)
	for _, it := range s.rows {
		if !it.deleted {
			st.Rows++
		}
		if it.err != nil {
			st.Failed++
		}
	}
	return st
}

// Outcome tells whether a row of the table is stored. The bool is false if it is not known.
func (s *Store[K, V]) Outcome(k K) (state.Outcome, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it, ok := s.rows[k]
	if !ok {
		return state.Outcome{}, false
	}
	return state.Outcome{
		Revision: it.revision,
		Done:     it.done && !it.deleted,
		Deleted:  it.deleted,
		Err:      it.err,
		Attempts: it.attempts,
		At:       it.at,
		Retry:    it.due,
	}, true
}

func (s *Store[K, V]) listed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listedLocked()
}

func (s *Store[K, V]) listedLocked() bool {
	for _, p := range s.parts {
		if !p.listed {
			return false
		}
	}
	return true
}

// failLocked records an error of the store as a whole.
func (s *Store[K, V]) failLocked(err error) {
	s.st.LastError, s.st.LastErrorAt = err, time.Now()
}
