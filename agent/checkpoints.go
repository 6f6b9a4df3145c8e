// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/weft-net/weft/agent/checkpoint"
	"github.com/weft-net/weft/clustermesh"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

const (
	// checkpointEvery is the least time between two looks for changes to keep. A crash loses what
	// was learnt since the last one, and only if the store is away at the next start.
	checkpointEvery = 10 * time.Second
	// checkpointCost bounds the share of time that looking and writing take: they rest for so many
	// times as long as they took.
	checkpointCost = 50
	// checkpointStale is after what time a file is written anew although no row changed, so that
	// the age that people are shown is about right.
	checkpointStale = 5 * time.Minute
	// checkpointGrace is how long our store may take to answer at the start before rows are taken
	// from the checkpoint. What answers is better than what was kept.
	checkpointGrace = 3 * time.Second
)

// checkpoints keep what is known of each store over a restart, in one file per store. At the start
// the rows of a store that does not answer are taken from its file: they are in force, but their
// source is not synced, so nothing is pruned on their word, and the first list replaces them.
type checkpoints struct {
	cfg    Config
	dir    string
	client *kvstore.Client
	mesh   func() clustermesh.Status
	own    map[string]keptTable
	remote map[string]keptTable
	// watches are those of our store, by the names of their tables.
	watches map[string]keptWatch
	log     *slog.Logger
	// began is closed when the watches of our store may list.
	began chan struct{}
	// restored has a row for each source whose services are those of its file.
	restored *state.Table[state.Source, bool]

	mu     sync.Mutex
	stores map[string]keptStore
}

// keptStore is what is known of one file.
type keptStore struct {
	read    bool
	file    *checkpoint.File // until its rows are not needed any more
	tables  map[string]bool  // that were taken from it and not listed since
	listed  map[string]bool  // tables whose rows are the store's, and what is held of what it lacks
	at      time.Time        // how old the rows were that were taken; zero: none
	known   bool             // it was read and handed on
	refused string           // why the file was not read, and where it is now

	marks   map[string]tableMark // of the rows that were written
	written time.Time            // when they were right
	rows    int
	failed  error // of the last attempt to write
}

func newCheckpoints(cfg Config, client *kvstore.Client, t tables, mesh func() clustermesh.Status, log *slog.Logger) *checkpoints {
	c := &checkpoints{
		cfg: cfg, dir: filepath.Join(cfg.StateDir, "checkpoint"), client: client, mesh: mesh, log: log,
		began: make(chan struct{}), restored: newRestored(),
		stores: map[string]keptStore{},
	}
	c.own, c.remote = t.keptTables()
	return c
}

func newRestored() *state.Table[state.Source, bool] {
	t := state.NewTable[state.Source]("restored", state.Equal[bool])
	t.MarkSynced(derived)
	return t
}

// after is a run that waits until rows of our store were taken from its file or need not be.
func (c *checkpoints) after(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-c.began:
		}
		return run(ctx)
	}
}

// Run keeps what changes until ctx ends, and once more then.
func (c *checkpoints) Run(ctx context.Context) error {
	c.begin(ctx)
	close(c.began)
	for pause := checkpointEvery; ; {
		wait := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			wait.Stop()
			c.save()
			return nil
		case <-wait.C:
		}
		start := time.Now()
		c.save()
		pause = max(checkpointEvery, checkpointCost*time.Since(start))
	}
}

// begin hands what was kept of our own store to its watches, which hold what is absent from a store
// that is another one, and takes the rows into the tables if the store does not answer.
func (c *checkpoints) begin(ctx context.Context) {
	file := c.open(c.cfg.Cluster)
	defer c.change(c.cfg.Cluster, func(s *keptStore) { s.file = nil })
	if file == nil || file.ClusterID != c.cfg.ClusterID {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, checkpointGrace)
	defer cancel()
	_, _, err := c.client.Get(ctx, schema.EpochKey)
	if err == nil {
		for name, w := range c.watches {
			w.restore(keptRows(file, c.own[name].Name(), w.prefix), 0, file.At)
		}
		c.change(c.cfg.Cluster, func(s *keptStore) { s.known = true })
		return
	}
	rows, bad := 0, 0
	for name, t := range c.own {
		r, b := t.restore(file.Tables[t.Name()], etcd, c.cfg.scope(), file.At)
		rows, bad = rows+r, bad+b
		c.took(c.cfg.Cluster, name, file.At)
	}
	c.restored.Put(derived, 0, etcd, true)
	c.log.Warn("our store does not answer, rows are those of the checkpoint", "rows", rows, "invalid", bad,
		"age", time.Since(file.At).Round(time.Second), "error", err)
}

// keptRows are the rows of a table in a file; their keys begin with prefix.
func keptRows(file *checkpoint.File, table, prefix string) iter.Seq[kvstore.KV] {
	return func(yield func(kvstore.KV) bool) {
		for _, row := range file.Tables[table] {
			if !yield(kvstore.KV{Key: prefix + row.Key, Value: row.Value, ModRevision: row.Origin}) {
				return
			}
		}
	}
}

// follow takes note, until ctx ends, of the tables of our store that were listed.
func (c *checkpoints) follow(ctx context.Context) error {
	for name, w := range c.watches {
		select {
		case <-ctx.Done():
			return nil
		case <-w.listed:
			c.Listed(c.cfg.Cluster, schema.Resource(name), true)
		}
	}
	return nil
}

// Clusters implements clustermesh.Kept.
func (c *checkpoints) Clusters() (names []string) {
	list, err := os.ReadDir(c.dir)
	if err != nil {
		return nil // there is none before the first file
	}
	for _, f := range list {
		if !strings.Contains(f.Name(), ".") { // being written, or put aside
			names = append(names, f.Name())
		}
	}
	return names
}

// ID implements clustermesh.Kept.
func (c *checkpoints) ID(cluster string) uint32 {
	if file := c.open(cluster); file != nil {
		return file.ClusterID
	}
	return 0
}

// Rows implements clustermesh.Kept.
func (c *checkpoints) Rows(cluster string, r schema.Resource) (iter.Seq[kvstore.KV], time.Time) {
	file, t := c.open(cluster), c.remote[string(r)]
	if file == nil || t == nil {
		return nil, time.Time{}
	}
	c.change(cluster, func(s *keptStore) { s.known = true })
	return keptRows(file, t.Name(), ""), file.At
}

// Listed implements clustermesh.Kept. What was kept is not needed any more once all is listed. A
// source whose rows were kept is complete by its lists even where it is not synced, because rows are
// held: those are among what was kept.
func (c *checkpoints) Listed(cluster string, r schema.Resource, listed bool) {
	src, tables := clustermesh.SourceOf(cluster), c.remote
	if cluster == c.cfg.Cluster {
		src, tables = etcd, c.own
	}
	complete := false
	c.change(cluster, func(s *keptStore) {
		s.listed, s.tables = with(s.listed, string(r), listed), with(s.tables, string(r), false)
		complete = s.known && len(s.listed) == len(tables)
		if len(s.listed) == len(tables) {
			s.file = nil
		}
	})
	if complete {
		c.restored.Put(derived, 0, src, true)
	}
}

// with is a copy of a set with a member, or without it.
func with(set map[string]bool, member string, in bool) map[string]bool {
	out := maps.Clone(set)
	if out == nil {
		out = map[string]bool{}
	}
	if delete(out, member); in {
		out[member] = true
	}
	return out
}

// Restore implements clustermesh.Kept.
func (c *checkpoints) Restore(cluster string, r schema.Resource) int {
	file, t := c.open(cluster), c.remote[string(r)]
	if file == nil || t == nil {
		return 0
	}
	src := clustermesh.SourceOf(cluster)
	scope := schema.Scope{Cluster: cluster, ClusterID: file.ClusterID, MaxClusters: c.cfg.MaxClusters}
	rows, bad := t.restore(file.Tables[t.Name()], src, scope, file.At)
	c.took(cluster, string(r), file.At)
	c.change(cluster, func(s *keptStore) {
		if len(s.tables) == len(c.remote) {
			s.file = nil
		}
	})
	if r == schema.ResourceServices {
		c.restored.Put(derived, 0, src, true)
	}
	c.log.Info("rows of a remote are those of the checkpoint", "cluster", cluster, "resource", r, "rows", rows, "invalid", bad,
		"age", time.Since(file.At).Round(time.Second))
	return rows
}

// open reads the file of a cluster's store, once. It is nil where there is none that can be used.
func (c *checkpoints) open(cluster string) *checkpoint.File {
	if s := c.store(cluster); s.read {
		return s.file
	}
	path := c.path(cluster)
	file, err := checkpoint.Read(path, cluster)
	refused := ""
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
	case checkpoint.Refused(err):
		refused = err.Error()
		if to, err := checkpoint.Aside(path); err == nil {
			refused += "; it is now " + to
		}
	default:
		refused = err.Error()
	}
	if refused != "" {
		c.log.Warn("checkpoint refused", "cluster", cluster, "error", refused)
	}
	c.change(cluster, func(s *keptStore) {
		s.read, s.file, s.refused = true, file, refused
	})
	return file
}

// save writes what changed, and removes the files of clusters that are not in the mesh any more.
func (c *checkpoints) save() {
	marks := map[string]map[state.Source]tableMark{} // by the table's name: each is walked once
	for _, tables := range []map[string]keptTable{c.own, c.remote} {
		for _, t := range tables {
			if marks[t.Name()] == nil {
				marks[t.Name()] = t.marks()
			}
		}
	}
	c.saveStore(c.cfg.Cluster, c.cfg.ClusterID, etcd, c.own, marks)
	mesh, known := c.mesh(), map[string]bool{c.cfg.Cluster: true}
	for _, r := range mesh.Remotes {
		// One that lost its id to another was drained: it may not come back by its file.
		if known[r.Name] = r.ID != 0 || r.Phase != clustermesh.PhaseRefused; r.ID != 0 {
			c.saveStore(r.Name, r.ID, clustermesh.SourceOf(r.Name), c.remote, marks)
		}
	}
	if mesh.Directory.Problem != "" || mesh.Directory.Read.IsZero() {
		return // nobody knows which remotes there are
	}
	for _, name := range c.Clusters() {
		if known[name] {
			continue
		}
		if err := os.Remove(c.path(name)); err != nil {
			c.log.Warn("checkpoint of a removed cluster stays", "cluster", name, "error", err)
			continue
		}
		c.mu.Lock()
		delete(c.stores, name)
		c.mu.Unlock()
	}
}

// saveStore writes the file of one store if its rows changed and all of them are known.
func (c *checkpoints) saveStore(cluster string, id uint32, src state.Source, tables map[string]keptTable, all map[string]map[state.Source]tableMark) {
	s := c.store(cluster)
	marks := map[string]tableMark{}
	at := time.Now()
	for name, t := range tables {
		ours, ok := standing(t, src)
		if !ok || !ours.Synced && !s.tables[name] && !s.listed[name] {
			return
		}
		if ours.Confirmed.Before(at) {
			at = ours.Confirmed
		}
		marks[name] = all[t.Name()][src]
	}
	if maps.Equal(marks, s.marks) && at.Sub(s.written) < checkpointStale {
		return
	}
	c.open(cluster) // puts aside what cannot be read
	rows, bad := 0, 0
	scope := schema.Scope{Cluster: cluster, ClusterID: id, MaxClusters: c.cfg.MaxClusters}
	_, err := checkpoint.Write(c.path(cluster), checkpoint.Header{Cluster: cluster, ClusterID: id, At: at}, func(w *checkpoint.Writer) {
		for _, t := range tables {
			r, b := t.save(w, src, scope)
			rows, bad = rows+r, bad+b
		}
	})
	if bad > 0 {
		c.log.Warn("rows left out of the checkpoint", "cluster", cluster, "rows", bad)
	}
	c.change(cluster, func(s *keptStore) {
		s.failed = err
		if err == nil {
			s.marks, s.written, s.rows, s.file = marks, at, rows, nil
		}
	})
}

func (c *checkpoints) path(cluster string) string { return filepath.Join(c.dir, cluster) }

func (c *checkpoints) took(cluster, table string, at time.Time) {
	c.change(cluster, func(s *keptStore) {
		s.tables, s.at = with(s.tables, table, true), at
	})
}

func (c *checkpoints) store(cluster string) keptStore {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stores[cluster]
}

func (c *checkpoints) change(cluster string, f func(*keptStore)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stores[cluster]
	f(&s)
	c.stores[cluster] = s
}
