// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"fmt"
	"time"

	"github.com/weft-net/weft/state"
)

// takeChanges brings what is wanted up to date with the table.
func (s *Store[K, V]) takeChanges(cursor *state.Cursor[K, V]) {
	changes := cursor.Next(0)
	if len(changes) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := make([]*item[K, V], 0, len(changes))
	// What goes lets go of its keys before what comes claims them: an address may move.
	for _, c := range changes {
		it := s.rows[c.Key]
		if it == nil {
			if c.Deleted {
				continue
			}
			it = &item[K, V]{key: c.Key, wrote: map[string][]byte{}}
			s.rows[c.Key] = it
		}
		for key := range it.over {
			s.forgetLocked(it, key) // theirs; a row that wants it still writes it again
		}
		it.value, it.revision, it.deleted = c.Value, c.Revision, c.Deleted
		it.done, it.stuck, it.attempts, it.err, it.due, it.over = false, false, 0, nil, time.Time{}, nil
		it.want = nil
		changed = append(changed, it)
		s.dirty[it] = struct{}{}
	}
	for _, it := range changed {
		s.claimLocked(it)
	}
}

// claimLocked computes the keys of a row. Keys that another row wants stay with that row.
func (s *Store[K, V]) claimLocked(it *item[K, V]) {
	if it.deleted {
		return
	}
	want := map[string][]byte{}
	for _, p := range s.parts {
		if err := p.rows(it.key, it.value, want); err != nil {
			it.err, it.stuck, it.at = err, true, time.Now()
			return
		}
	}
	for key := range want {
		other := s.byKey[key]
		if other == nil || other == it {
			continue
		}
		if _, wanted := other.want[key]; wanted {
			it.err = fmt.Errorf("%s is published for %v", key, other.key)
			it.attempts++
			it.at, it.due = time.Now(), time.Now().Add(s.delay(it.attempts))
			return
		}
	}
	it.want = want
	for key := range want {
		if other := s.byKey[key]; other != nil && other != it {
			delete(other.wrote, key)
		}
		s.byKey[key] = it
		if kv, stands := s.stale[key]; stands { // as it is wanted, perhaps
			s.actual[key] = kv
			delete(s.stale, key)
		}
	}
}

// leaseChanged makes every row be looked at again.
func (s *Store[K, V]) leaseChanged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range s.rows {
		it.done = false
		s.dirty[it] = struct{}{}
	}
}

// delay is the pause before another attempt at one row.
func (s *Store[K, V]) delay(attempts int) time.Duration {
	d := s.cfg.MinBackoff
	for range attempts - 1 {
		if d *= 2; d >= s.cfg.MaxBackoff {
			return s.cfg.MaxBackoff
		}
	}
	return d
}
