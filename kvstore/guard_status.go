// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// HeldRow is one row that the table has and the store has not.
type HeldRow struct {
	Key      string // as it stands in the store
	Resource string // "ips", "nodes", …
	Owner    string
	Since    time.Time
	Why      Why
	// Settling says that the row is not held, but waits to see whether the leases of others end too.
	Settling bool
}

// WitnessStatus is the put by which a store is recognised.
type WitnessStatus struct {
	Key      string
	Revision int64
}

// HeldKind counts the held rows of one kind.
type HeldKind struct {
	Resource string
	Rows     int
}

// HeldOwner counts the held rows of one owner.
type HeldOwner struct {
	Name      string
	Rows      int
	Confirmed bool // it has said that all its rows are there: these go next
}

// HoldStatus is what a hold looks like.
type HoldStatus struct {
	Holding     bool
	Since       time.Time
	Reason      string
	Rows        int
	Settling    int // rows beside them, of owners whose leases have just ended
	Kinds       []HeldKind
	Owners      []HeldOwner
	Unconfirmed int  // owners of held rows that have not spoken since
	Stuck       bool // the limit is over and too many have not spoken: a person must decide
	// Left is how long the youngest rows are held at most, while the store is connected and its
	// heartbeat moves.
	Left time.Duration
}

// GuardStatus is what a guard knows.
type GuardStatus struct {
	Cluster    string
	Lineage    Continuity // of the last judgement, "" before the first
	ClusterID  uint64
	Epoch      string
	Generation uint64 // grows with each lineage or epoch that was not the one before
	Witness    WitnessStatus
	Checked    time.Time
	FileError  error // why the lineage on disk could not be read, at the start, or cannot be written
	Alive      bool  // connected, and the heartbeat moves: limits count
	Owners     bool  // the store is known to have owners' rows: their word ends a hold
	Hold       HoldStatus
}

// Status returns what the guard knows.
func (g *Guard) Status() GuardStatus {
	f, kinds := g.facts()
	v := judgeHold(f)
	g.mu.Lock()
	defer g.mu.Unlock()
	st := GuardStatus{
		Cluster: g.cfg.Cluster, Lineage: g.continuity, ClusterID: g.lineage.clusterID, Epoch: g.lineage.epoch,
		Generation: g.generation + g.epochs, Witness: WitnessStatus{g.lineage.witness.key, g.lineage.witness.mod},
		Checked: g.checked, FileError: g.fileErrorLocked(), Alive: g.aliveLocked(time.Now()),
		Owners: g.cfg.Owners && g.weft,
	}
	h := &st.Hold
	h.Holding, h.Unconfirmed, h.Stuck = g.holding, v.unconfirmed, v.stuck
	if g.holding {
		h.Since, h.Reason = g.since, g.reason
	}
	owners := map[string]*HeldOwner{}
	for group, n := range f.groups {
		if group.settling(v.mass) {
			h.Settling += n
			continue
		}
		h.Rows += n
		o := owners[group.owner]
		if o == nil {
			o = &HeldOwner{Name: group.owner, Confirmed: true}
			owners[group.owner] = o
		}
		o.Rows += n
		_, said := f.confirmed(group.owner, group.revision)
		o.Confirmed = o.Confirmed && said
		limit := f.limit
		if group.why == WhySpan {
			limit = f.brief
		}
		h.Left = max(h.Left, limit-(f.clock-group.born))
	}
	for _, o := range owners {
		h.Owners = append(h.Owners, *o)
	}
	slices.SortFunc(h.Owners, func(a, b HeldOwner) int { return cmp.Compare(a.Name, b.Name) })
	for name, n := range kinds {
		h.Kinds = append(h.Kinds, HeldKind{name, n})
	}
	slices.SortFunc(h.Kinds, func(a, b HeldKind) int { return cmp.Compare(a.Resource, b.Resource) })
	return st
}

// fileErrorLocked is what is wrong with the files, in one line.
func (g *Guard) fileErrorLocked() error {
	switch {
	case g.loadError == nil:
		return g.fileError
	case g.fileError == nil:
		return g.loadError
	}
	return fmt.Errorf("%w; %w", g.loadError, g.fileError)
}

// Holding tells whether anything is held or not yet known on the present lineage, and returns a
// channel that is closed when that changes.
func (g *Guard) Holding() (bool, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.holding, g.changed
}

// Held returns at most limit held rows in the order of their keys, as far as they were looked at.
func (g *Guard) Held(limit int) []HeldRow {
	var out []HeldRow
	mass := g.massive()
	for _, m := range g.membersNow() {
		out = append(out, m.heldRows(limit-len(out), mass)...)
	}
	out = append(out, g.carriedRows(limit-len(out))...)
	slices.SortFunc(out, func(a, b HeldRow) int { return cmp.Compare(a.Key, b.Key) })
	return out
}
