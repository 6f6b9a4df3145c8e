// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// filling is older history that is on its way.
type filling struct {
	from int64 // what it is to reach back to
	done chan struct{}
}

// end wakes those who wait for it.
func (f *filling) end() *filling {
	if f != nil {
		close(f.done)
	}
	return nil
}

// FillingError means that the answer lies in history that is still on its way. Ask again when Done
// is closed.
type FillingError struct{ Done <-chan struct{} }

func (e *FillingError) Error() string { return "the history is not there yet" }

// errUnlike means that older history does not end in what the store holds.
var errUnlike = errors.New("the history does not lead to what is there")

// expectFill says that history from a revision on is on its way. Questions that it answers wait
// until backfill or giveUp.
func (s *Store) expectFill(from int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fill = s.fill.end()
	if from < s.log.first {
		s.fill = &filling{from: from, done: make(chan struct{})}
	}
}

// giveUp says that no older history comes.
func (s *Store) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fill = s.fill.end()
}

// past is one revision of older history. The events have what was before each, as far as the etcd
// still knew it.
type past struct {
	rev    int64
	events []*mvccpb.Event
}

// backfill puts history before what the store began with: all that happened from a revision on up to
// the one the store was made at, oldest first. Of more than the budget holds, the oldest is left out.
// It changes nothing if the history does not fit what is there, or if the store has begun to forget.
func (s *Store) backfill(from int64, pasts []past) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.fill = s.fill.end() }()
	base := s.base
	if s.floor.Load() != base {
		return errors.New("back-fill: the history is full already")
	}
	if from > base {
		return nil
	}
	var room, held int64 = s.history.Bytes - s.log.bytes, 0
	for i := len(pasts) - 1; i >= 0; i-- {
		for _, ev := range pasts[i].events {
			held += sizeOf(ev.Kv)
		}
		if held > room {
			from, pasts = pasts[i].rev+1, pasts[i+1:]
			break
		}
	}

	old := s.view.Load()
	entries, chains := s.chainLocked(from, pasts)
	for _, ch := range chains {
		if err := ch.check(old.keys.get(ch.key), base); err != nil {
			return fmt.Errorf("back-fill: %w", err)
		}
	}
	// … and that it leaves no change out.
	missing := ""
	byKey := make(map[string]bool, len(chains))
	for _, ch := range chains {
		byKey[ch.key] = true
	}
	old.keys.ascend("", "", func(it *item) bool {
		if mod := it.oldest().kv.ModRevision; mod >= from && mod <= base && !byKey[it.key] {
			missing = it.key
		}
		return missing == ""
	})
	if missing != "" {
		return fmt.Errorf("back-fill: %w: nothing of %s", errUnlike, missing)
	}
	v := *old // of the same revision
	v.floor = from
	e := new(edit)
	for _, ch := range chains {
		it := v.keys.get(ch.key)
		switch {
		case it == nil: // deleted before the store began
			it = &item{key: ch.key}
			it.head.Store(ch.last)
			v.keys, v.gone = v.keys.set(e, it), v.gone.set(e, it)
			s.bytes += sizeOf(ch.last.kv)
		case it.oldest().kv.ModRevision > base:
			it.oldest().prev.Store(ch.last)
		default:
			// The version is there already: it gets what was before it.
			o := it.oldest()
			o.prev.Store(ch.last.prev.Load())
			ch.change.version = o
		}
	}
	s.log.prepend(from, entries)
	s.view.Store(&v)
	s.floor.Store(from)
	return nil
}

// chain is what happened to one key.
type chain struct {
	key    string
	last   *version
	change *change // of last
}

// chainLocked makes entries and chains of older history that begins at a revision.
func (s *Store) chainLocked(from int64, pasts []past) ([]*entry, []*chain) {
	entries := make([]*entry, 0, len(pasts))
	byKey := map[string]*chain{}
	var chains []*chain
	now := s.now()
	for _, p := range pasts {
		en := &entry{rev: p.rev, at: now, changes: make([]change, len(p.events))}
		for i, ev := range p.events {
			encoded := s.encodeLocked(ev)
			v := &version{kv: ev.Kv}
			ch := byKey[string(ev.Kv.Key)]
			if ch == nil {
				ch = &chain{key: string(ev.Kv.Key)}
				byKey[ch.key] = ch
				chains = append(chains, ch)
				if ev.PrevKv != nil && p.rev > from { // nobody reads before
					v.prev.Store(&version{kv: ev.PrevKv})
				}
			} else {
				v.prev.Store(ch.last)
			}
			en.changes[i] = change{Event: &mvccpb.Event{Type: ev.Type, Kv: ev.Kv}, version: v, encoded: encoded}
			ch.last, ch.change = v, &en.changes[i]
			en.bytes += sizeOf(ev.Kv)
		}
		entries = append(entries, en)
	}
	return entries, chains
}

// check tells whether a chain ends in what the store has of the key since it began at a revision.
func (ch *chain) check(it *item, base int64) error {
	existed := it != nil && it.oldest().kv.ModRevision <= base
	switch {
	case ch.last.kv.ModRevision > base:
		return fmt.Errorf("%w: %s changed at %d, behind %d", errUnlike, ch.key, ch.last.kv.ModRevision, base)
	case existed != !ch.last.deleted():
		return fmt.Errorf("%w: %s existed: %t", errUnlike, ch.key, existed)
	case !existed:
		return nil
	}
	if kv := it.oldest().kv; kv.ModRevision != ch.last.kv.ModRevision || !bytes.Equal(kv.Value, ch.last.kv.Value) {
		return fmt.Errorf("%w: %s was changed last at %d, not at %d", errUnlike, ch.key, kv.ModRevision, ch.last.kv.ModRevision)
	}
	return nil
}
