// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"bytes"
	"fmt"
	"strings"
)

// takeFeed brings what is known to be stored up to date.
func (s *Store[K, V]) takeFeed() {
	words := s.feed.take()
	if len(words) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range words {
		if w.revision != 0 {
			s.listLocked(s.parts[w.part], w)
			continue
		}
		for _, ev := range w.events {
			s.eventLocked(ev)
		}
	}
}

// listLocked takes over a list: what is known of keys that were not written since the list's
// revision is what the list says.
func (s *Store[K, V]) listLocked(p *part[K, V], w feedWord) {
	if w.continuity != ContinuityProven {
		// What was written before went to another store, whose revisions mean nothing here.
		for key, kv := range s.actual {
			if strings.HasPrefix(key, p.prefix) {
				kv.ModRevision = 0
				s.actual[key] = kv
			}
		}
	}
	there := make(map[string]struct{}, len(w.list))
	for _, kv := range w.list {
		there[kv.Key] = struct{}{}
		it := s.byKey[kv.Key]
		switch {
		case it != nil && s.actual[kv.Key].ModRevision <= w.revision:
			s.actual[kv.Key] = kv
			s.touchLocked(it)
		case it == nil && p.owns(kv.Key, kv.Value):
			s.stale[kv.Key] = kv
		}
	}
	for key, kv := range s.actual {
		if _, ok := there[key]; ok || kv.ModRevision > w.revision || !strings.HasPrefix(key, p.prefix) {
			continue
		}
		s.goneLocked(key)
	}
	for key := range s.stale {
		if _, ok := there[key]; !ok && strings.HasPrefix(key, p.prefix) {
			delete(s.stale, key)
		}
	}
	p.listed = true
}

func (s *Store[K, V]) eventLocked(ev event) {
	it, known := s.byKey[ev.Key], s.actual[ev.Key]
	if ev.ModRevision <= known.ModRevision {
		return // our own write, or one before it
	}
	if ev.Deleted {
		delete(s.stale, ev.Key)
		if it != nil {
			s.goneLocked(ev.Key)
		}
		return
	}
	if it == nil {
		if _, ok := s.stale[ev.Key]; ok {
			delete(s.stale, ev.Key) // written anew by somebody: it is his now
		}
		return
	}
	want, wanted := it.want[ev.Key]
	attempt := it.wrote[ev.Key]
	switch {
	case wanted && bytes.Equal(want, ev.Value):
		// Written by us without an answer, or by somebody who means the same; the lease decides.
		s.actual[ev.Key] = ev.KV
	case wanted && s.cfg.Enforce:
		s.actual[ev.Key] = ev.KV
		s.st.Repaired++
		s.log.Info("row was changed by somebody else, writing it again", "key", ev.Key)
	case wanted && attempt != nil && bytes.Equal(attempt, ev.Value):
		s.actual[ev.Key] = ev.KV // an earlier attempt of ours
	case wanted:
		s.actual[ev.Key] = ev.KV
		if it.over == nil {
			it.over = map[string]bool{}
		}
		it.over[ev.Key] = true
		s.log.Info("row was written over by somebody else", "key", ev.Key)
	case attempt != nil && bytes.Equal(attempt, ev.Value):
		s.actual[ev.Key] = ev.KV // ours, and to be deleted
	default:
		// Not wanted any more and not ours any more.
		s.forgetLocked(it, ev.Key)
	}
	s.touchLocked(it)
}

// goneLocked takes note that a key is not stored.
func (s *Store[K, V]) goneLocked(key string) {
	delete(s.actual, key)
	it := s.byKey[key]
	if it == nil {
		return
	}
	if _, wanted := it.want[key]; wanted {
		s.st.Repaired++
		s.log.Info("row is gone from the store, writing it again", "key", key)
	}
	delete(it.over, key)
	s.touchLocked(it)
}

// forgetLocked ends the connection of a key with a row.
func (s *Store[K, V]) forgetLocked(it *item[K, V], key string) {
	delete(it.wrote, key)
	delete(s.actual, key)
	if s.byKey[key] == it {
		delete(s.byKey, key)
	}
}

// touchLocked makes a row be looked at again.
func (s *Store[K, V]) touchLocked(it *item[K, V]) {
	if it.over != nil {
		for key := range it.over {
			it.err = fmt.Errorf("%s: %w", key, ErrOverwritten)
		}
	}
	it.done = false
	s.dirty[it] = struct{}{}
}
