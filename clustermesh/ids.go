// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import "sync"

// ids says which remote has which cluster id. Two remotes with one id cannot both be mirrored; who
// goes first does not depend on who was there first, for every node must come to the same verdict:
// the one whose id was pinned when it joined, then the one whose name comes first.
type ids struct {
	mu     sync.Mutex
	pins   map[string]uint32
	byName map[string]uint32
	// changed is closed and replaced when byName or pins change.
	changed chan struct{}
}

func newIDs(pins map[string]Pin) *ids {
	x := &ids{pins: make(map[string]uint32), byName: make(map[string]uint32), changed: make(chan struct{})}
	for name, pin := range pins {
		x.pins[name] = pin.ID
	}
	return x
}

// claim says that a remote calls itself by the id; zero takes that back.
func (x *ids) claim(name string, id uint32) { x.set(x.byName, name, id) }

// pin says by which id a remote has joined; zero takes that back.
func (x *ids) pin(name string, id uint32) { x.set(x.pins, name, id) }

func (x *ids) set(in map[string]uint32, name string, id uint32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if in[name] == id {
		return
	}
	if id == 0 {
		delete(in, name)
	} else {
		in[name] = id
	}
	close(x.changed)
	x.changed = make(chan struct{})
}

// pinned returns by which id a remote has joined, 0 if it is not known, and a channel that is closed when
// that may change.
func (x *ids) pinned(name string) (id uint32, changed <-chan struct{}) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.pins[name], x.changed
}

// owner returns who has an id, empty for nobody, and a channel that is closed when that may change.
func (x *ids) owner(id uint32) (name string, changed <-chan struct{}) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for n, i := range x.byName {
		if i == id && (name == "" || x.beforeLocked(n, name, id)) {
			name = n
		}
	}
	return name, x.changed
}

// wouldOwn tells who would have an id if the named remote asked for it.
func (x *ids) wouldOwn(name string, id uint32) string {
	owner, _ := x.owner(id)
	x.mu.Lock()
	defer x.mu.Unlock()
	if owner == "" || owner == name || x.beforeLocked(name, owner, id) {
		return name
	}
	return owner
}

func (x *ids) beforeLocked(a, b string, id uint32) bool {
	if pa, pb := x.pins[a] == id, x.pins[b] == id; pa != pb {
		return pa
	}
	return a < b
}
