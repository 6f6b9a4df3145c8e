// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// errHold means that the store may have lost rows, so nothing may be taken away.
var errHold = errors.New("the store may have lost rows, nothing is taken away until their owners are back")

// Limits of a hold: how long owners have to come back after a broken lineage, and how long a
// deletion of several services by hand stops work. Both count only while the store answers.
const (
	holdLimit = 20 * time.Minute
	holdBrief = 30 * time.Second
)

// gate tells whether work must rest now, and returns a channel that is closed when that changes.
type gate func() (bool, <-chan struct{})

// gated runs work while all gates are open: it is ended when one closes, and begun anew after it.
func gated(ctx context.Context, run func(context.Context) error, gates ...gate) error {
	for ctx.Err() == nil {
		var all []<-chan struct{}
		var shut <-chan struct{}
		for _, g := range gates {
			held, changed := g()
			if held {
				shut = changed
			}
			all = append(all, changed)
		}
		if shut != nil {
			select {
			case <-ctx.Done():
			case <-shut:
			}
			continue
		}
		err := until(ctx, all, run)
		if err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) && !errors.Is(err, errHold) {
			return err
		}
	}
	return nil
}

// until runs until one of the channels is closed or run returns.
func until(ctx context.Context, ends []<-chan struct{}, run func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, end := range ends {
		wg.Go(func() {
			select {
			case <-end:
				cancel()
			case <-ctx.Done():
			}
		})
	}
	return run(ctx)
}

// hold tells whether the keeper holds, and when to ask again.
func (k *keeper) hold() (bool, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.holding, k.changed
}

func (k *keeper) setHolding(h bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.holding == h {
		return
	}
	k.holding = h
	close(k.changed)
	k.changed = make(chan struct{})
}

// anyHold tells whether the keeper or the guard of the mirror holds.
func (k *keeper) anyHold() bool {
	held, _ := k.hold()
	return held || k.guard != nil && k.guard().Hold.Holding
}

// beginHold begins a hold of what a view lacks, or makes it longer.
func (k *keeper) beginHold(v view, limit time.Duration) {
	k.mem.HoldLeft, k.mem.HeldAt = max(k.mem.HoldLeft, limit), v.revision
	k.setHolding(true)
}

// endHold ends a hold when all nodes that the cluster had say that their rows stand in the store of
// this epoch, when its time is over, or when a person decides. Its time does not end it while so many
// nodes are silent that the way to the store is the likelier reason.
func (k *keeper) endHold(v view, now time.Time) {
	m := &k.mem
	passed := now.Sub(k.looked)
	if k.looked.IsZero() || passed > time.Minute {
		passed = 0 // the store was away, or we were frozen
	}
	k.looked = now
	held, _ := k.hold()
	k.show(k.anyHold(), false, 0)
	if !held {
		m.Nodes, m.Names = len(v.nodes), v.nodes
		return
	}
	m.HoldLeft = max(0, m.HoldLeft-passed)
	total, silent := m.waited(v)
	adopted := k.adopts(v)
	if adopted {
		for key := range m.Held {
			delete(m.Rows, key)
		}
		m.Held = nil
	}
	stuck := m.HoldLeft == 0 && kvstore.TooMany(silent, total)
	over := adopted || len(m.Held) == 0 && (max(total, m.Nodes) > 0 && silent == 0 || m.HoldLeft == 0 && !stuck)
	if !over {
		k.show(true, stuck, silent)
		if stuck && !k.stuck {
			k.log.Warn("too many nodes are silent for the hold to end by itself; decide with 'weft store hold list' and 'weft store adopt'",
				"silent", silent, "nodes", total)
		}
		k.stuck = stuck
		return
	}
	m.HoldLeft, k.stuck = 0, false
	k.setHolding(false)
	k.show(k.anyHold(), false, 0)
	k.log.Info("hold ended", "adopted", adopted, "silent", silent, "nodes", total)
}

// waited counts the nodes that a hold waits for, and those of them that have not said that their rows
// stand in the store of this epoch. One that has left in order is not waited for.
func (m *memory) waited(v view) (total, silent int) {
	total = len(v.nodes)
	for node := range v.nodes {
		if !v.confirming[node] {
			silent++
		}
	}
	absent := max(0, m.Nodes-total)
	if m.Names != nil {
		absent = 0
		for node := range m.Names {
			if !v.nodes[node] && !v.left[node] {
				absent++
			}
		}
	}
	return total + absent, silent + absent
}

// show shows what the keeper holds, or the guard of what exports are made of: either keeps numbers
// from being collected, and either may wait for a person.
func (k *keeper) show(holding, stuck bool, silent int) {
	if k.guard != nil {
		h := k.guard().Hold
		holding, stuck, silent = holding || h.Holding, stuck || h.Stuck, max(silent, h.Unconfirmed)
	}
	k.metrics.show(holding, stuck, silent)
}

// adopts tells whether a person decided, after the hold began, that what is in the store is the truth.
func (k *keeper) adopts(v view) bool {
	if v.decision.Key == "" || v.decision.ModRevision <= k.mem.HeldAt {
		return false
	}
	d, err := schema.DecodeDecision(v.decision.Value)
	epoch, eerr := schema.DecodeEpoch(v.epoch.Value)
	return err == nil && eerr == nil && d.Decision == schema.DecisionAdopt && d.Epoch == epoch.ID
}

// owed tells whether the guard found another store that still has the epoch of the one before, so
// that a new one has to be written.
func (k *keeper) owed(v view) bool {
	if k.guard == nil {
		return false
	}
	st, now := k.guard(), epochID(string(v.epoch.Value))
	if st.Generation > k.guarded.generation {
		if st.Lineage == kvstore.ContinuityBroken && st.Epoch != "" && st.Epoch == k.guarded.epoch {
			k.due = st.Epoch
		}
		k.guarded.generation, k.guarded.epoch = st.Generation, st.Epoch
	}
	if k.due != now {
		k.due = "" // somebody has
	}
	return k.due != ""
}

// epochID is the ID in a value of the epoch, "" where it has none.
func epochID(value string) string {
	e, err := schema.DecodeEpoch([]byte(value))
	if err != nil {
		return ""
	}
	return e.ID
}
