// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"sort"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/mem"
)

// log is the history: what each revision changed, oldest first. It is complete from first on.
type log struct {
	first   int64
	entries []*entry
	bytes   int64
}

// entry is one revision that changed something.
type entry struct {
	rev     int64
	at      time.Time // when it was seen here
	bytes   int64
	changes []change
}

// change is one event with its version.
type change struct {
	*mvccpb.Event
	version *version
	encoded mem.Buffer // as in Change
}

func (l *log) append(en *entry) {
	l.entries = append(l.entries, en)
	l.bytes += en.bytes
}

// drop forgets the oldest entry.
func (l *log) drop() {
	l.first = l.entries[0].rev + 1
	l.bytes -= l.entries[0].bytes
	l.entries[0] = nil
	l.entries = l.entries[1:]
}

// prepend puts older entries before what is there; they are complete from first on.
func (l *log) prepend(first int64, older []*entry) {
	l.entries = append(older, l.entries...)
	l.first = first
	for _, en := range older {
		l.bytes += en.bytes
	}
}

// Change is one event of the history.
type Change struct {
	*mvccpb.Event                  // never to be written
	Prev          *mvccpb.KeyValue // what was before; nil: the key did not exist
	// Encoded is the event, without Prev, as it stands in a message to a watch: a field of a
	// WatchResponse. It is shared by all that are sent it, and never to be written either.
	Encoded mem.Buffer
}

// Batch is a run of changes: everything that happened from a revision on up to Through, inclusive.
type Batch struct {
	Changes []Change
	Through int64
}

// Since returns what happened from a revision on: whole revisions, as many as are not larger than
// limit bytes together, and one at least. If there is nothing yet, the batch is empty and reaches to the newest
// revision. Prev is only set with prev. The error is a *CompactedError, or *FillingError if the
// answer will be known later.
func (s *Store) Since(from, limit int64, prev bool) (Batch, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	newest := s.view.Load().rev
	if from < s.log.first {
		if s.fill != nil && from >= s.fill.from {
			return Batch{}, &FillingError{s.fill.done}
		}
		return Batch{}, &CompactedError{s.log.first}
	}
	es := s.log.entries
	es = es[sort.Search(len(es), func(i int) bool { return es[i].rev >= from }):]
	b := Batch{Through: max(newest, from-1)}
	size := int64(0)
	for i, en := range es {
		if size += en.bytes; i > 0 && size > limit {
			b.Through = es[i-1].rev
			return b, nil
		}
		for _, c := range en.changes {
			out := Change{Event: c.Event, Encoded: c.encoded}
			if p := c.version.prev.Load(); prev && p != nil && !p.deleted() {
				out.Prev = p.kv
			}
			b.Changes = append(b.Changes, out)
		}
	}
	return b, nil
}
