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
	c, mirror := g.c, g.mirror
	g.mu.Unlock()
	log := g.log.With("for", "guard") // others may watch the same prefix
	follow := func(prefix string, exact bool, each sink) *follower {
		cfg := g.cfg.Follow.follow(prefix)
		cfg.exact = exact
		f := &follower{c: c, cfg: cfg, sink: each, log: log, foreign: g.cfg.ReadOnly}
		f.renew = g.renewal // what was said of another lineage is forgotten
		wg.Go(func() { _ = f.run(ctx) })
		return f
	}
	beating := follow(schema.HeartbeatReadPrefix, false, eachSink(g.heartbeat))
	if g.cfg.Owners {
		follow(schema.EpochKey, true, eachSink(g.epoch))
		if mirror == "" {
			follow(schema.OwnersPrefix, false, &ownersSink{guard: g})
		} else {
			follow(mirror, true, eachSink(g.mirrorSaid))
		}
		follow(schema.DecisionKey, true, eachSink(g.decided))
	}
	g.mu.Lock()
	g.beating = beating
	g.ticked = time.Now()
	g.mu.Unlock()
	defer func() { // nobody asks the store any more
		g.mu.Lock()
		g.beating = nil
		g.mu.Unlock()
	}()

	tick := time.NewTicker(min(time.Second, max(min(g.cfg.Brief, g.cfg.Settle)/4, 10*time.Millisecond)))
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
		if since := time.Since(saved); since >= savePeriod || since >= pause && (!g.written || !maps.Equal(groups, g.savedHeld) || g.massive() != g.savedMass) {
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
func (g *Guard) adopt(revision int64) {
	g.mu.Lock()
	g.rest, g.adopted = time.Time{}, revision
	g.mu.Unlock()
	g.log.Info("held rows go by decision", "cluster", g.cfg.Cluster, "revision", revision)
	g.settle()
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
	return g.connectedLocked() && now.Sub(g.beat) < g.cfg.Heartbeat
}

func (g *Guard) connectedLocked() bool { return g.beating != nil && g.beating.status().connected }

// tick lets the clocks of limits run, if the store lives.
func (g *Guard) tick(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if d := now.Sub(g.ticked); d > 0 && g.aliveLocked(now) {
		g.clock += min(d, time.Minute) // a process that was frozen has seen nothing
	}
	if d := now.Sub(g.ticked); d > 0 && g.connectedLocked() {
		g.online += min(d, time.Second)
	}
	g.ticked = now
}
