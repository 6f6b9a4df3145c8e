// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"slices"
	"sync"
	"testing"
)

// tenure is one user of a number: from the answer of its allocation until just before its release.
// Times are ticks of the history, each of them given once.
type tenure struct {
	node, labels string
	id           ID
	from, to     int  // to is 0 while it lasts
	lapsed       bool // the node's lease ended meanwhile, or a hand was in the store
}

func (u *tenure) String() string {
	return fmt.Sprintf("%s held %d for %s from %d to %d (lapsed %v)", u.node, uint32(u.id), u.labels, u.from, u.to, u.lapsed)
}

// history is who held which number when.
type history struct {
	mu      sync.Mutex
	now     int
	tenures []*tenure
	given   map[string]bool // "<number> <labels>" that a peer gave, or tried to, which knows no rest
}

// give notes that a peer is about to give a number to a set.
func (h *history) give(id ID, labels string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.given == nil {
		h.given = map[string]bool{}
	}
	h.given[fmt.Sprintf("%d %s", uint32(id), labels)] = true
}

// byPeer tells whether a set may have its number from a peer.
func (h *history) byPeer(u *tenure) bool {
	return h.given[fmt.Sprintf("%d %s", uint32(u.id), u.labels)]
}

// begin notes the answer of an allocation.
func (h *history) begin(u tenure) *tenure {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now++
	u.from = h.now
	h.tenures = append(h.tenures, &u)
	return &u
}

// end notes that a number is about to be released.
func (h *history) end(u *tenure) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now++
	u.to = h.now
}

// lapse notes that what a node holds now is not backed by its lease any more.
func (h *history) lapse(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, u := range h.tenures {
		if u.node == node && u.to == 0 {
			u.lapsed = true
		}
	}
}

// judge returns the pairs of tenures that break a guarantee. A set may have two numbers for a while
// only where one holder's lease had ended; a number never has two sets, except that a peer which
// knows no rest may take what a holder without a lease still uses.
func (h *history) judge() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var broken []string
	for i, u := range h.tenures {
		for _, v := range h.tenures[:i] {
			if u.to != 0 && u.to < v.from || v.to != 0 && v.to < u.from {
				continue
			}
			switch {
			case u.labels == v.labels && u.id != v.id && !u.lapsed && !v.lapsed:
				broken = append(broken, fmt.Sprintf("one set, two numbers:\n  %v\n  %v", v, u))
			case u.labels != v.labels && u.id == v.id && !(u.lapsed && h.byPeer(v) || v.lapsed && h.byPeer(u)):
				broken = append(broken, fmt.Sprintf("one number, two sets:\n  %v\n  %v", v, u))
			}
		}
	}
	return broken
}

// The judge finds what is broken, and nothing else.
func TestHistory_Judge(t *testing.T) {
	for name, c := range map[string]struct {
		tenures []tenure
		want    int
	}{
		"one-after-the-other": {[]tenure{{labels: "a", id: 1, from: 1, to: 2}, {labels: "b", id: 1, from: 3}}, 0},
		"together":            {[]tenure{{labels: "a", id: 1, from: 1}, {labels: "a", id: 1, from: 2}, {labels: "b", id: 2, from: 3}}, 0},
		"two-numbers":         {[]tenure{{labels: "a", id: 1, from: 1}, {labels: "a", id: 2, from: 2, to: 3}}, 1},
		"two-numbers-lapsed":  {[]tenure{{labels: "a", id: 1, from: 1, lapsed: true}, {labels: "a", id: 2, from: 2}}, 0},
		"two-sets":            {[]tenure{{labels: "a", id: 1, from: 1, to: 3}, {labels: "b", id: 1, from: 2}}, 1},
		"two-sets-lapsed":     {[]tenure{{labels: "a", id: 1, from: 1, lapsed: true}, {labels: "b", id: 1, from: 2}}, 1},
		"two-sets-by-a-peer":  {[]tenure{{labels: "a", id: 1, from: 1, lapsed: true}, {labels: "given", id: 1, from: 2}}, 0},
	} {
		h := &history{}
		h.give(1, "given")
		for _, u := range slices.Clone(c.tenures) {
			h.tenures = append(h.tenures, &u)
		}
		if got := h.judge(); len(got) != c.want {
			t.Errorf("%s: got %q, want %d", name, got, c.want)
		}
	}
}
