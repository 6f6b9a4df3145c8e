// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

const (
	// keepOften is how soon a view is kept again when rows that were held went: an etcd that is compacted
	// has some minutes of its history, and tells a server that is started anew what happened since.
	keepOften = 2 * time.Minute
	// keepRarely is how soon it is whatever happened.
	keepRarely = 10 * time.Minute
	// keepLongest is how old a view may be that is served after a start. It is for restarts: after longer
	// than that what went meanwhile would come back, and nodes be waited for that are gone.
	keepLongest = time.Hour
)

// keptView is when a view was kept, and how many rows were held then.
type keptView struct {
	at   time.Time // zero: none is
	rows int
}

// keep puts what is served on disk if the etcd could not tell it to a server that is started anew: the
// last view of a store that was lost (zero: it was not), or what is held beside its successor. Where the
// etcd can tell all, nothing is kept. A disk that fails costs what it is for, and is logged.
func (c *Cache) keep(gen *Generation, lost time.Time) {
	if c.cfg.File == "" {
		return
	}
	if gen.held == nil && lost.IsZero() {
		c.kept = keptView{}
		if err := os.Remove(c.cfg.File); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.log.Warn("a view that is served no more stays on disk; remove it", "error", err)
		}
		return
	}
	h := viewHeader{
		Cluster: c.cfg.Cluster, Prefix: c.cfg.Prefix, At: time.Now(), Upstream: gen.upstream, Epoch: gen.Epoch,
		Revision: gen.Store.Revision(), Holding: lost, Waited: c.waited,
	}
	c.witness.mu.Lock()
	h.Key, h.Mod, h.Hash, h.Deleted = c.witness.key, c.witness.mod, c.witness.hash, c.witness.deleted
	c.witness.mu.Unlock()
	if gen.held != nil {
		h.Held = gen.held.header(h.Revision)
	}
	gen.Store.each("", func(*mvccpb.KeyValue) { h.Keys++ })
	// Also where it fails: it is not tried again for each message.
	c.kept = keptView{at: h.At, rows: heldRows(gen)}
	err := writeView(c.cfg.File, h, func(put func(*mvccpb.KeyValue)) { gen.Store.each("", put) })
	if err != nil {
		c.log.Warn("what is served of a lost store would be lost in a restart; make room for it", "error", err)
	}
}

// keepAgain keeps the view again if what was kept is too old, or is to be kept no more.
func (c *Cache) keepAgain(gen *Generation, lost time.Time) {
	age := time.Since(c.kept.at)
	if age >= keepRarely || age >= keepOften && heldRows(gen) != c.kept.rows || gen.held == nil && lost.IsZero() {
		c.keep(gen, lost)
	}
}

func heldRows(gen *Generation) int {
	if gen.held == nil {
		return 0
	}
	return len(gen.held.rows)
}

// recall serves what was kept, if anything was. Whether the etcd goes on from there, or is still another
// one, shows when it is reached.
func (c *Cache) recall() {
	if c.cfg.File == "" {
		return
	}
	h, kvs, err := readView(c.cfg.File)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err == nil && (h.Cluster != c.cfg.Cluster || h.Prefix != c.cfg.Prefix):
		err = fmt.Errorf("it is of %s of cluster %s", h.Prefix, h.Cluster)
	case err == nil && time.Since(h.At) > keepLongest:
		err = fmt.Errorf("it is of %s, more than %v ago", h.At.Format(time.RFC3339), keepLongest)
	}
	if err != nil {
		c.log.Warn("the view that was kept of a lost store is not served", "file", c.cfg.File, "error", err)
		return
	}
	last := h.Held.held(kvs)
	c.kept, c.waited = keptView{at: h.At}, h.Waited
	if last != nil {
		c.kept.rows = len(last.rows)
	}
	c.witness.mu.Lock()
	c.witness.key, c.witness.mod, c.witness.hash, c.witness.deleted = h.Key, h.Mod, h.Hash, h.Deleted
	c.witness.mu.Unlock()
	c.mu.Lock()
	c.status.Holding = h.Holding
	c.mu.Unlock()
	gen := newGeneration(NewStore(c.cfg.History, h.Revision, kvs), h.Upstream, h.Epoch, last)
	gen.from = gen.Store.base
	if last != nil && h.Held.Went {
		gen.from++
	}
	c.holds(last)
	c.log.Info("what was served of a lost store is served on", "revision", h.Revision, "held", heldRows(gen), "age", time.Since(h.At).Round(time.Second))
	c.publishUnread(gen)
}

// header is what is kept of what is held at a revision.
func (h *held) header(revision int64) *heldHeader {
	out := &heldHeader{
		Epoch: h.epoch, Base: h.base, Owners: map[string][]string{}, Nodes: slices.Sorted(maps.Keys(h.nodes)),
		Since: h.since, Ready: h.ready, Waited: h.waited, Went: h.went == revision,
	}
	for owner, rows := range h.owners {
		out.Owners[owner] = slices.Sorted(maps.Keys(rows))
	}
	return out
}

// held is the inverse of header: who has spoken is heard again.
func (d *heldHeader) held(kvs []*mvccpb.KeyValue) *held {
	if d == nil {
		return nil
	}
	h := &held{
		epoch: d.Epoch, base: d.Base, since: d.Since, ready: d.Ready, waited: d.Waited,
		owners: map[string]map[string]*mvccpb.KeyValue{}, rows: map[string]string{}, nodes: map[string]bool{},
	}
	for _, name := range d.Nodes {
		h.nodes[name] = false
	}
	owners := map[string]string{}
	for owner, keys := range d.Owners {
		for _, key := range keys {
			owners[key] = owner
		}
	}
	for _, kv := range kvs {
		if owner, ok := owners[string(kv.Key)]; ok && kv.ModRevision == heldRevision {
			h.hold(owner, kv)
		}
	}
	return h
}
