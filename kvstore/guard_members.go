// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"net/netip"
	"time"
)

// member is a watch as its guard sees it.
type member interface {
	mark(holding bool)
	groups(into map[heldGroup]int, kinds map[string]int, mass bool)
	heldRows(limit int, mass bool) []HeldRow
	held(into map[string]carriedRow)
	end(gone func(heldGroup) bool) int
	values(of func(heldGroup) bool) ([]KV, error)
	rowsOf(owners map[string]bool, most int) map[string][]string
	prefix() string
	follower() *follower
}

// enroll makes a watch known until the returned function is called.
func (g *Guard) enroll(m member) (leave func()) {
	g.mu.Lock()
	g.loadLocked()
	g.members[m] = struct{}{}
	g.enrolled[resourceOf(m.prefix())] = true
	g.mu.Unlock()
	return func() {
		g.mu.Lock()
		delete(g.members, m)
		g.mu.Unlock()
	}
}

// membersNow returns the watches that run.
func (g *Guard) membersNow() []member {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]member, 0, len(g.members))
	for m := range g.members {
		out = append(out, m)
	}
	return out
}

// nodeHas remembers an address of a node.
func (g *Guard) nodeHas(name string, addr netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.nodes[addr] = name
}

// nodeAt returns the name of the node with an address, or the address.
func (g *Guard) nodeAt(addr netip.Addr) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if name, ok := g.nodes[addr]; ok {
		return name
	}
	return addr.String()
}

// time is how long the store has been seen alive.
func (g *Guard) time() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.clock
}
