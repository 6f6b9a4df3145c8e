// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"strings"
	"time"

	"github.com/weft-net/weft/kvstore/schema"
)

// eachSink is told of every row and every change alike.
type eachSink func(event)

func (s eachSink) page(kvs []KV, _ bool) {
	for _, kv := range kvs {
		s(event{KV: kv})
	}
}
func (s eachSink) listed(context.Context, int64, Continuity) {}
func (s eachSink) events(_ context.Context, evs []event) {
	for _, ev := range evs {
		s(ev)
	}
}
func (s eachSink) confirmed(int64, time.Time) {}

// ownersSink is told what owners say. A list that lacks an owner is its deletion.
type ownersSink struct {
	guard *Guard
	seen  map[string]bool
}

func (s *ownersSink) page(kvs []KV, restart bool) {
	if restart {
		s.seen = map[string]bool{}
	}
	for _, kv := range kvs {
		s.seen[strings.TrimPrefix(kv.Key, schema.OwnersPrefix)] = true
		s.guard.ownerSaid(event{KV: kv})
	}
}

func (s *ownersSink) listed(context.Context, int64, Continuity) {
	s.guard.mu.Lock()
	defer s.guard.mu.Unlock()
	for name := range s.guard.known {
		if !s.seen[name] {
			s.guard.ownerGoneLocked(name)
		}
	}
}

func (s *ownersSink) events(_ context.Context, evs []event) {
	for _, ev := range evs {
		s.guard.ownerSaid(ev)
	}
}

func (s *ownersSink) confirmed(int64, time.Time) {}

// mirrorSaid takes over the row of the mirror whose copy is read.
func (g *Guard) mirrorSaid(ev event) { g.said(OwnerMirror, ev) }

// ownerSaid takes over an owners' row.
func (g *Guard) ownerSaid(ev event) { g.said(strings.TrimPrefix(ev.Key, schema.OwnersPrefix), ev) }

func (g *Guard) said(name string, ev event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ev.Deleted {
		g.ownerGoneLocked(name)
		return
	}
	codec := schema.Owners()
	o, err := codec.Decode(name, ev.Value)
	if err != nil {
		return
	}
	g.words[name] = ownerWord{o, ev.ModRevision}
	g.weft = true
	if o.Left {
		delete(g.known, name) // nobody waits for it, in a hold neither
	} else {
		g.known[name] = true
	}
	g.nudge()
}

// ownerGoneLocked forgets what an owner said. In hold it is waited for nevertheless, until that ends.
func (g *Guard) ownerGoneLocked(name string) {
	delete(g.words, name)
	if g.holding {
		g.known[name] = false
	} else {
		delete(g.known, name)
	}
}
