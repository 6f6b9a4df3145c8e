// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// History says how much of the past a Store keeps. A revision is forgotten when it is older than
// Age and behind the newest Revisions, or when Bytes would be exceeded, which wins.
type History struct {
	Age       time.Duration // default 10 min
	Revisions int           // that changed something; default 100,000
	Bytes     int64         // default 256 MiB
}

func (h History) withDefaults() History {
	if h.Age <= 0 {
		h.Age = 10 * time.Minute
	}
	if h.Revisions <= 0 {
		h.Revisions = 100_000
	}
	if h.Bytes <= 0 {
		h.Bytes = 256 << 20
	}
	return h
}

// ErrFuture means that a revision was asked for that the store has not reached.
var ErrFuture = errors.New("the revision is in the future")

// CompactedError means that a revision was asked for that the store does not know any more. A watch
// may begin at Revision.
type CompactedError struct{ Revision int64 }

func (e *CompactedError) Error() string {
	return fmt.Sprintf("the revision is forgotten, the history begins at %d", e.Revision)
}

// Store is an ordered set of keys with revisions and a history. One writer feeds it; reads hold no
// lock and are of one revision.
type Store struct {
	history History
	now     func() time.Time
	base    int64 // the revision that the store began with

	view  atomic.Pointer[view]
	floor atomic.Int64 // reads are right from this revision on

	mu    sync.RWMutex
	log   log
	fill  *filling // nil: no older history is to be expected
	bytes int64    // of the newest versions
	coded int64    // bytes of events that were encoded
}

// view is the store at one revision.
type view struct {
	rev     int64
	shape   int64         // the last revision at which a key came or went
	floor   int64         // the trees have what existed from this revision on, but for what is forgotten
	keys    tree          // every key that exists or did within the history
	gone    tree          // those of them that do not exist
	changed chan struct{} // closed when there is a newer view
}

// NewStore returns a store that holds kvs, ordered by key, as they are at a revision. Their memory is
// the store's from now on.
func NewStore(h History, revision int64, kvs []*mvccpb.KeyValue) *Store {
	s := &Store{history: h.withDefaults(), now: time.Now, base: revision}
	v := &view{rev: revision, shape: revision, floor: revision, changed: make(chan struct{})}
	e := new(edit)
	for _, kv := range kvs {
		it := &item{key: string(kv.Key)}
		it.head.Store(&version{kv: kv})
		v.keys = v.keys.set(e, it)
		s.bytes += sizeOf(kv)
	}
	s.floor.Store(revision)
	s.log.first = revision + 1
	s.view.Store(v)
	return s
}

// Revision is the newest.
func (s *Store) Revision() int64 { return s.view.Load().rev }

// Changed is closed as soon as there is something after the revision that is returned with it.
func (s *Store) Changed() (revision int64, changed <-chan struct{}) {
	v := s.view.Load()
	return v.rev, v.changed
}

// Apply adds the events of one revision, which must be newer than all before, in the order the etcd
// had them. Their memory is the store's from now on.
func (s *Store) Apply(revision int64, events []*mvccpb.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.view.Load()
	if revision <= old.rev {
		return fmt.Errorf("apply revision %d: the store is at %d", revision, old.rev)
	}
	v := &view{
		rev: revision, shape: old.shape, floor: old.floor, keys: old.keys, gone: old.gone, changed: make(chan struct{}),
	}
	en := &entry{rev: revision, at: s.now(), changes: make([]change, 0, len(events))}
	e := new(edit)
	for _, ev := range events {
		encoded := s.encodeLocked(ev) // before the first reader sees it
		next := &version{kv: ev.Kv}
		key := string(ev.Kv.Key)
		it := v.keys.get(key)
		existed := it != nil && !it.head.Load().deleted()
		switch {
		case it == nil:
			it = &item{key: key}
			v.keys = v.keys.set(e, it)
		default:
			last := it.head.Load()
			next.prev.Store(last)
			s.bytes -= sizeOf(last.kv)
		}
		// Readers of an older view pass over it by its revision.
		it.head.Store(next)
		s.bytes += sizeOf(ev.Kv)
		if exists := !next.deleted(); exists != existed || it.head.Load().prev.Load() == nil {
			v.shape = revision
			if exists {
				v.gone = v.gone.remove(e, key)
			} else {
				v.gone = v.gone.set(e, it)
			}
		}
		en.changes = append(en.changes, change{Event: ev, version: next, encoded: encoded})
		en.bytes += sizeOf(ev.Kv)
	}
	s.log.append(en)
	s.trimLocked(v, e)
	s.view.Store(v)
	close(old.changed)
	return nil
}

// Advance says that nothing changed up to a revision. One that was reached already is no news.
func (s *Store) Advance(revision int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.view.Load()
	if revision <= old.rev {
		return
	}
	v := *old
	v.rev, v.changed = revision, make(chan struct{})
	s.view.Store(&v)
	close(old.changed)
}

// trimLocked forgets what need not be kept. The newest entry always stays: a budget smaller than one
// change must not keep that change from its watchers.
func (s *Store) trimLocked(v *view, e *edit) {
	oldest := s.now().Add(-s.history.Age)
	for len(s.log.entries) > 1 {
		en := s.log.entries[0]
		if s.log.bytes <= s.history.Bytes && (len(s.log.entries) <= s.history.Revisions || !en.at.Before(oldest)) {
			return
		}
		s.fill = s.fill.end() // what is older could not be kept either
		s.log.drop()
		s.floor.Store(en.rev) // before anything is cut off
		for _, c := range en.changes {
			c.version.prev.Store(nil)
			if key := string(c.Kv.Key); c.version.deleted() {
				if it := v.keys.get(key); it != nil && it.head.Load() == c.version {
					v.keys, v.gone = v.keys.remove(e, key), v.gone.remove(e, key)
					s.bytes -= sizeOf(c.Kv)
				}
			}
		}
	}
}

// Stats says how large a store is.
type Stats struct {
	Revision     int64
	Floor        int64 // reads reach back to this revision
	Keys         int
	Bytes        int64 // of the keys as they are
	Revisions    int   // in the history that changed something
	HistoryBytes int64
	Oldest       time.Time // when the oldest of them was seen; zero: none
	Filling      bool      // older history is still on its way
	Encoded      int64     // bytes of events that were encoded for watches, since the store began
}

// Stats returns the sizes at this moment.
func (s *Store) Stats() Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	v := s.view.Load()
	st := Stats{
		Revision: v.rev, Floor: s.floor.Load(), Keys: v.keys.len() - v.gone.len(), Bytes: s.bytes,
		Revisions: len(s.log.entries), HistoryBytes: s.log.bytes, Filling: s.fill != nil,
		Encoded: s.coded,
	}
	if st.Revisions > 0 {
		st.Oldest = s.log.entries[0].at
	}
	return st
}

// overhead is about what a version costs beside key and value.
const overhead = 240

func sizeOf(kv *mvccpb.KeyValue) int64 { return int64(len(kv.Key)+len(kv.Value)) + overhead }
