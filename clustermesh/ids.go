// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import "sync"

// ids says which remote has which cluster id. Two remotes with one id cannot both be mirrored; who
// goes first does not depend on who was there first, for every node must come to the same verdict:
// the one whose id was pinned when it joined, then the one whose name comes first.
type ids struct {
	pins map[string]Pin

	mu     sync.Mutex
	byName map[string]uint32
	// changed is closed and replaced when byName changes.
	changed chan struct{}
}

func newIDs(pins map[string]Pin) *ids {
	return &ids{pins: pins, byName: make(map[string]uint32), changed: make(chan struct{})}
}

// claim says that a remote calls itself by the id; zero takes that back.
func (x *ids) claim(name string, id uint32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.byName[name] == id {
		return
	}
	if id == 0 {
		delete(x.byName, name)
	} else {
		x.byName[name] = id
	}
	close(x.changed)
	x.changed = make(chan struct{})
}

// owner returns who has an id, empty for nobody, and a channel that is closed when that may change.
func (x *ids) owner(id uint32) (name string, changed <-chan struct{}) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for n, i := range x.byName {
		if i == id && (name == "" || x.before(n, name, id)) {
			name = n
		}
	}
	return name, x.changed
}

// wouldOwn tells who would have an id if the named remote asked for it.
func (x *ids) wouldOwn(name string, id uint32) string {
	owner, _ := x.owner(id)
	if owner == "" || owner == name || x.before(name, owner, id) {
		return name
	}
	return owner
}

func (x *ids) before(a, b string, id uint32) bool {
	if pa, pb := x.pins[a].ID == id, x.pins[b].ID == id; pa != pb {
		return pa
	}
	return a < b
}
