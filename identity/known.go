// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// knownNumbers is what the mirror says of the cluster's numbers, with an index by labels.
type knownNumbers struct {
	cluster     string
	first, last ID
	table       *state.Table[schema.IdentityKey, string]
	synced      chan struct{} // closed once the mirror has synced
	markSynced  func()
	usedHere    func(ID) bool // by any set; called without mu

	mu       sync.Mutex
	byLabels map[string][]ID
	gone     map[ID]string // labels of the numbers that the mirror has shown and shows no more
	former   map[string]ID // the last of them by labels
	tried    map[ID]bool   // being written by somebody on this node
	changed  chan struct{} // closed and replaced when the index changes
}

func newKnownNumbers(cfg Config, table *state.Table[schema.IdentityKey, string]) *knownNumbers {
	first, last := Range(cfg.ClusterID, cfg.MaxClusters)
	synced := make(chan struct{})
	return &knownNumbers{
		cluster: cfg.Cluster, first: first, last: last, table: table,
		synced: synced, markSynced: sync.OnceFunc(func() { close(synced) }), byLabels: map[string][]ID{}, tried: map[ID]bool{},
		gone: map[ID]string{}, former: map[string]ID{},
		changed: make(chan struct{}),
	}
}

// changes returns a channel that is closed when the mirror shows something new.
func (k *knownNumbers) changes() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.changed
}

// tellChange closes the channel of changes.
func (k *knownNumbers) tellChange() {
	k.mu.Lock()
	defer k.mu.Unlock()
	close(k.changed)
	k.changed = make(chan struct{})
}

// follow keeps the index and calls changed for each change of the mirror, until ctx ends.
func (k *knownNumbers) follow(ctx context.Context, changed func(state.Change[schema.IdentityKey, string])) error {
	cursor := k.table.Cursor()
	defer cursor.Close()
	for {
		for changes := cursor.Next(1000); len(changes) > 0; changes = cursor.Next(1000) {
			for _, c := range changes {
				k.apply(c)
				changed(c)
			}
			k.tellChange()
		}
		// Of the cursor, not the table: a mark that came before the last Next wakes nobody.
		if cursor.Synced() {
			k.markSynced()
		}
		if err := cursor.Wait(ctx); err != nil {
			return ctx.Err()
		}
	}
}

func (k *knownNumbers) apply(c state.Change[schema.IdentityKey, string]) {
	k.mu.Lock()
	defer k.mu.Unlock()
	id := ID(c.Key.ID)
	rest := k.byLabels[c.Value]
	for i, other := range rest {
		if other == id {
			rest = append(rest[:i:i], rest[i+1:]...)
			break
		}
	}
	if labels, ok := k.gone[id]; ok {
		delete(k.gone, id)
		if k.former[labels] == id {
			delete(k.former, labels)
		}
	}
	if c.Deleted {
		k.gone[id], k.former[c.Value] = c.Value, id
	} else {
		rest = append(rest, id)
	}
	if len(rest) == 0 {
		delete(k.byLabels, c.Value)
		return
	}
	k.byLabels[c.Value] = rest
}

// of returns the number of a label string, the oldest if there are several, or Unknown.
func (k *knownNumbers) of(text string) ID {
	k.mu.Lock()
	defer k.mu.Unlock()
	var best ID
	var since int64
	for _, id := range k.byLabels[text] {
		row, ok := k.table.Get(k.key(id))
		// The index holds what was delivered; a number may have got other labels since.
		if ok && row.Value == text && (best == Unknown || row.Origin < since) {
			best, since = id, row.Origin
		}
	}
	return best
}

// hasSynced tells whether the mirror has synced.
func (k *knownNumbers) hasSynced() bool {
	select {
	case <-k.synced:
		return true
	default:
		return false
	}
}

// shows tells whether the index has a number for a label string, so that the end of it would be told.
func (k *knownNumbers) shows(text string, id ID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Contains(k.byLabels[text], id)
}

// formerly returns a number that a label string had until lately and that nothing else has, or
// Unknown. Nodes that were away may still know the set by it.
func (k *knownNumbers) formerly(text string) ID {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.former[text]
}

// left tells whether a number had a set until lately.
func (k *knownNumbers) left(id ID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.gone[id]
	return ok
}

func (k *knownNumbers) key(id ID) schema.IdentityKey {
	return schema.IdentityKey{Cluster: k.cluster, ID: uint32(id)}
}

// inRange tells whether a number is one of the cluster's.
func (k *knownNumbers) inRange(id ID) bool { return id >= k.first && id <= k.last }

// reserve keeps a number from others on this node until unreserve, or returns false if somebody has
// it.
func (k *knownNumbers) reserve(id ID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.tried[id] {
		return false
	}
	k.tried[id] = true
	return true
}

func (k *knownNumbers) unreserve(id ID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.tried, id)
}

// pick reserves and returns a number that is free as far as is known, and not one of those excluded.
// Random numbers keep allocators out of each other's way. A number that vanished from the mirror is
// the last resort: it may have been deleted by hand, and its users be about to write it again.
func (k *knownNumbers) pick(excluded map[ID]bool) (ID, error) {
	free := func(id ID, vanished bool) bool {
		if excluded[id] || k.left(id) != vanished || k.usedHere(id) {
			return false
		}
		_, taken := k.table.Get(k.key(id))
		return !taken && k.reserve(id)
	}
	n := uint32(k.last-k.first) + 1
	for range 16 {
		if id := k.first + ID(rand.Uint32N(n)); free(id, false) {
			return id, nil
		}
	}
	start := rand.Uint32N(n)
	for _, vanished := range []bool{false, true} {
		for i := range n {
			if id := k.first + ID((start+i)%n); free(id, vanished) {
				return id, nil
			}
		}
	}
	return Unknown, &ExhaustedError{Cluster: k.cluster, First: k.first, Last: k.last}
}
