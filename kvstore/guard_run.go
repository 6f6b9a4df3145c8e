// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/weft-net/weft/kvstore/schema"
)

// Run follows what ends holds until ctx ends: owners' rows, decisions, the epoch and the heartbeat.
// What this client may not read it goes without.
func (g *Guard) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	g.mu.Lock()
	g.loadLocked()
	c := g.c
	g.mu.Unlock()
	follow := func(prefix string, exact bool, each sink) *follower {
		cfg := g.cfg.Follow.follow(prefix)
		cfg.exact = exact
		f := &follower{c: c, cfg: cfg, sink: each, log: g.log}
		f.renew = g.renewal // what was said of another lineage is forgotten
		wg.Go(func() { _ = f.run(ctx) })
		return f
	}
	beating := follow(schema.HeartbeatReadPrefix, false, eachSink(g.heartbeat))
	if g.cfg.Owners {
		follow(schema.EpochKey, true, eachSink(g.epoch))
		follow(schema.OwnersPrefix, false, &ownersSink{guard: g})
		follow(schema.DecisionKey, true, eachSink(g.decided))
	}
	g.mu.Lock()
	g.beating = beating
	g.ticked = time.Now()
	g.mu.Unlock()

	tick := time.NewTicker(min(time.Second, max(g.cfg.Brief/4, 10*time.Millisecond)))
	defer tick.Stop()
	saved, pause := time.Now(), time.Duration(0)
	defer g.save()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-g.wake:
		}
		g.tick(time.Now())
		g.settle()
		groups := map[heldGroup]int{}
		g.groups(groups, map[string]int{})
		if since := time.Since(saved); since >= savePeriod || !maps.Equal(groups, g.savedHeld) && since >= pause {
			saved = time.Now()
			g.save()
			pause = saveCost * time.Since(saved)
		}
	}
}

const (
	// savePeriod is how old the lineage on disk may be. What is held is there within a tick.
	savePeriod = 10 * time.Second
	// saveCost bounds the share of time that writing takes while what is held changes.
	saveCost = 20
)

func (g *Guard) heartbeat(ev event) {
	if ev.Deleted {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if ev.ModRevision != g.beatMod { // a list shows again what was seen
		g.beat, g.beatMod = time.Now(), ev.ModRevision
	}
}

func (g *Guard) epoch(ev event) {
	if ev.Deleted {
		return // whoever finds it missing writes a new one
	}
	id := epochID(ev.Value)
	g.mu.Lock()
	g.weft = true
	switch {
	case g.generation == 0 || g.lineage.epoch == id:
	case g.lineage.epoch == "":
		g.lineage.epoch, g.dirty = id, true
	default:
		// Somebody found another lineage. Everybody lists once more, and the witness tells whether
		// this process was with that store already.
		g.log.Info("the store has a new epoch", "cluster", g.cfg.Cluster, "epoch", id)
		g.lineage.epoch, g.dirty = id, true
		g.epochs++
		close(g.renewed)
		g.renewed = make(chan struct{})
	}
	g.mu.Unlock()
	g.refresh()
	g.nudge()
}

func (g *Guard) decided(ev event) {
	d, err := schema.DecodeDecision(ev.Value)
	if ev.Deleted || err != nil || d.Decision != schema.DecisionAdopt {
		return
	}
	g.mu.Lock()
	mine := d.Epoch == g.lineage.epoch
	g.mu.Unlock()
	if mine {
		g.adopt(ev.ModRevision)
	}
}

// adopt lets go of what was held before a revision.
func (g *Guard) adopt(revision int64) (ended int) {
	ended = g.end(func(h heldGroup) bool { return h.revision < revision })
	g.mu.Lock()
	g.rest = time.Time{}
	g.mu.Unlock()
	g.log.Info("held rows let go by decision", "cluster", g.cfg.Cluster, "rows", ended)
	g.refresh()
	return ended
}

// renewal returns a channel that is closed with the next lineage or epoch.
func (g *Guard) renewal() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.renewed
}

func (g *Guard) nudge() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// aliveLocked says that the store is connected and its heartbeat moves.
func (g *Guard) aliveLocked(now time.Time) bool {
	return g.beating != nil && g.beating.status().connected && now.Sub(g.beat) < g.cfg.Heartbeat
}

// tick lets the clock of limits run, if the store lives.
func (g *Guard) tick(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if d := now.Sub(g.ticked); d > 0 && g.aliveLocked(now) {
		g.clock += min(d, time.Minute) // a process that was frozen has seen nothing
	}
	g.ticked = now
}

// end lets held rows of some groups go.
func (g *Guard) end(gone func(heldGroup) bool) (ended int) {
	for _, m := range g.membersNow() {
		ended += m.end(gone)
	}
	return ended + g.endCarried(gone)
}

// groups counts what is held. Rows on their way from the guard to a watch may count twice.
func (g *Guard) groups(into map[heldGroup]int, kinds map[string]int) {
	g.carriedGroups(into, kinds)
	for _, m := range g.membersNow() {
		m.groups(into, kinds)
	}
}

// facts gathers what the end of the hold depends on.
func (g *Guard) facts() (holdFacts, map[string]int) {
	groups, kinds := map[heldGroup]int{}, map[string]int{}
	g.groups(groups, kinds)
	g.mu.Lock()
	defer g.mu.Unlock()
	f := holdFacts{
		groups: groups, words: map[string]ownerWord{}, known: map[string]bool{}, epoch: g.lineage.epoch,
		clock: g.clock, limit: g.cfg.Limit, brief: g.cfg.Brief, owners: g.cfg.Owners && g.weft,
	}
	for name, w := range g.words {
		f.words[name] = w
	}
	for name := range g.known {
		f.known[name] = true
	}
	for group := range groups {
		if group.owner != OwnerEverybody && group.owner != OwnerOperator {
			f.known[group.owner] = true
		}
	}
	return f, kinds
}

// settle ends what is to end.
func (g *Guard) settle() {
	f, _ := g.facts()
	if len(f.groups) > 0 {
		if v := judgeHold(f); len(v.end) > 0 {
			ended := g.end(func(h heldGroup) bool { return v.end[h] })
			g.log.Info("held rows let go", "cluster", g.cfg.Cluster, "rows", ended, "unconfirmed", v.unconfirmed)
		}
	}
	g.refresh()
}

// refresh finds out whether the guard holds and marks the sources of its watches.
func (g *Guard) refresh() {
	g.marking <- struct{}{}
	defer func() { <-g.marking }()
	groups := map[heldGroup]int{}
	g.groups(groups, map[string]int{})
	members := g.membersNow()
	g.mu.Lock()
	unjudged := g.unjudgedLocked()
	holding := len(groups) > 0 || time.Now().Before(g.rest) || unjudged
	g.broke = g.broke && unjudged
	if !holding && len(g.carried) == 0 {
		g.since = time.Time{}
	}
	if holding != g.holding {
		g.holding = holding
		if holding && g.since.IsZero() { // else an earlier process held
			g.since = time.Now()
			for h := range groups {
				if h.why != WhyLineage {
					g.reason = string(h.why)
				}
			}
		}
		close(g.changed)
		g.changed = make(chan struct{})
		g.log.Info("hold", "cluster", g.cfg.Cluster, "holding", holding, "reason", g.reason)
	}
	g.mu.Unlock()
	for _, m := range members {
		m.mark(holding)
	}
}
