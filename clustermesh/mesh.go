// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// sourceDirectory is what every table waits for until the directory was read once: before that
// nobody knows which remotes could still claim a row.
const sourceDirectory state.Source = "clustermesh"

// Mesh is all remote clusters of ours.
type Mesh struct {
	cfg       Config
	tables    Tables
	claims    *claims
	ids       *ids
	own       *OwnIPs
	views     *views // nil: copies in our own store are not looked for
	peers     *peers // nil: what remotes joined with is not looked for
	log       *slog.Logger
	directory *directory

	// Owned by Run.
	running map[string]*running
	earlier map[string]bool // remotes that an earlier run knew, and nothing has named yet
	removed map[string]bool // remotes whose file was removed and whose copy still stands

	// poke holds a token when the directory is to be looked at again.
	poke chan struct{}
	// repinned holds a token when a remote is held to something else, so that all is to be judged again.
	repinned chan struct{}

	mu      sync.Mutex
	remotes map[string]*remote
	forgets []string // remotes whose rows are to go
	read    time.Time
	named   bool // a remote was named
	problem string
}

// running is a remote whose run is in progress.
type running struct {
	remote *remote
	hash   [32]byte
	copied bool
	began  time.Time
	stop   func()
}

// New checks the settings and makes the tables wait for the mesh. The metrics are registered on reg,
// which may be nil.
func New(cfg Config, tables Tables, reg prometheus.Registerer, log *slog.Logger) (*Mesh, error) {
	d := DefaultConfig()
	for _, f := range []struct {
		to *time.Duration
		by time.Duration
	}{{&cfg.Poll, d.Poll}, {&cfg.ConfigPoll, d.ConfigPoll}, {&cfg.Connect, d.Connect}, {&cfg.RetryMin, d.RetryMin}, {&cfg.RetryMax, d.RetryMax}, {&cfg.Relist, d.Relist}} {
		if *f.to == 0 {
			*f.to = f.by
		}
	}
	if cfg.MaxClusters == 0 {
		cfg.MaxClusters = d.MaxClusters
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("cluster mesh: %w", err)
	}
	m := &Mesh{
		cfg: cfg, tables: tables, log: log,
		claims: newClaims(cfg.Cluster, cfg.Pins), ids: newIDs(cfg.Pins),
		directory: &directory{path: cfg.Dir, own: cfg.Cluster},
		running:   make(map[string]*running),
		earlier:   make(map[string]bool),
		removed:   make(map[string]bool),
		remotes:   make(map[string]*remote),
		poke:      make(chan struct{}, 1),
		repinned:  make(chan struct{}, 1),
	}
	m.own = newOwnIPs(cfg.Cluster, m.claims, tables.Nodes, cfg.Relist)
	if cfg.Own != nil {
		m.views = newViews(cfg.Cluster, cfg.Own, cfg.Follow, m.lookAgain, log)
	}
	if cfg.Peers != nil {
		m.peers = newPeers(cfg.Peers, cfg.Follow, log)
	}
	tables.expect(sourceDirectory)
	if reg != nil {
		if err := reg.Register(collector{m}); err != nil {
			return nil, fmt.Errorf("cluster mesh: register metrics: %w", err)
		}
	}
	return m, nil
}

// Run follows the directory and the remotes it names until ctx ends. All rows stay.
func (m *Mesh) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.followClaims(ctx) })
	if m.cfg.Dir == "" && m.views == nil {
		m.known()
		return g.Wait()
	}
	if m.views != nil {
		g.Go(func() error { return m.views.run(ctx) })
	}
	if m.peers != nil {
		g.Go(func() error { return m.followPeers(ctx) })
	}
	remotes, rctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := m.remember(rctx); err != nil {
			return nil // ctx ended
		}
		err := m.directory.follow(rctx, m.cfg.Poll, m.poke, func() { m.reread(rctx, remotes) })
		for _, r := range m.running {
			r.stop()
		}
		if werr := remotes.Wait(); err == nil {
			err = werr
		}
		return err
	})
	return g.Wait()
}

// known says that every remote there is, is expected by the tables.
func (m *Mesh) known() {
	for _, t := range m.tables.all() {
		t.MarkSynced(sourceDirectory)
	}
}

// Forget drops the rows of a remote that cannot be reached and what is known of its store: somebody says
// that it is gone for good. Its file may still name it; if it comes back it is mirrored as a new one. A
// remote that is connected keeps its rows.
func (m *Mesh) Forget(name string) {
	m.mu.Lock()
	m.forgets = append(m.forgets, name)
	m.mu.Unlock()
	m.lookAgain()
}

// lookAgain has the directory and the copies looked at.
func (m *Mesh) lookAgain() {
	select {
	case m.poke <- struct{}{}:
	default:
	}
}

// forgetting drops what is to be forgotten. The remotes begin anew after it.
func (m *Mesh) forgetting() {
	m.mu.Lock()
	names := m.forgets
	m.forgets = nil
	m.mu.Unlock()
	for _, name := range names {
		m.mu.Lock()
		r := m.remotes[name]
		m.mu.Unlock()
		if r == nil || r.status().Connected {
			continue
		}
		if run := m.running[name]; run != nil {
			run.stop()
			delete(m.running, name)
		}
		rows := r.drop()
		r.forget()
		m.ids.claim(name, 0)
		m.log.Info("remote cluster forgotten", "cluster", name, "rows", rows)
	}
}

// reread makes the running remotes those that the directory names.
func (m *Mesh) reread(ctx context.Context, g *errgroup.Group) {
	m.forgetting()
	found, err := m.directory.read()
	m.mu.Lock()
	before := m.problem
	if err != nil {
		m.problem = err.Error()
	} else {
		m.problem, m.read, m.named = "", time.Now(), m.named || len(found) > 0
	}
	now := m.problem
	m.mu.Unlock()
	if now != before && now != "" {
		m.log.Warn("mesh directory not usable, remote clusters stay as they were", "error", err)
	}
	if err != nil {
		return
	}
	found = m.withCopies(found)
	for name, f := range found {
		m.settle(ctx, g, name, f)
	}
	m.known()
	m.mu.Lock()
	var gone []*remote
	for name, r := range m.remotes {
		if _, still := found[name]; !still {
			gone = append(gone, r)
			delete(m.remotes, name)
		}
	}
	m.mu.Unlock()
	for _, r := range gone {
		if run := m.running[r.name]; run != nil {
			run.stop()
			delete(m.running, r.name)
		}
		rows := r.drop()
		m.ids.claim(r.name, 0)
		m.log.Info("remote cluster removed", "cluster", r.name, "rows", rows)
	}
}

// settle brings one remote in line with its file: starts it, or starts it anew with another file.
// What it mirrored stays meanwhile.
func (m *Mesh) settle(ctx context.Context, g *errgroup.Group, name string, f file) {
	m.mu.Lock()
	r := m.remotes[name]
	if r == nil {
		r = newRemote(name, m.cfg, m.tables, m.claims, m.ids, m.views, m.peers, m.log)
		m.remotes[name] = r
	}
	m.mu.Unlock()
	run := m.running[name]
	r.mu.Lock()
	said := r.file.err
	if f.err != nil && run != nil {
		r.file.err = f.err // it goes on with what it has
	} else {
		r.file = f
	}
	r.mu.Unlock()
	if f.err != nil {
		if said == nil || said.Error() != f.err.Error() {
			m.log.Warn("client file not usable", "cluster", name, "error", f.err)
		}
		return
	}
	if run != nil && run.hash == f.hash && run.copied == f.copied {
		return
	}
	if run != nil {
		run.stop()
	} else {
		m.tables.expect(r.source)
	}
	rctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	g.Go(func() error {
		defer close(done)
		return r.run(rctx, f)
	})
	m.running[name] = &running{r, f.hash, f.copied, time.Now(), func() { cancel(); <-done }}
	m.log.Info("remote cluster configured", "cluster", name, "endpoints", f.config.Endpoints, "copy", f.copied)
}

// followClaims keeps the claims equal to the nodes table, and judges rows again when they change.
func (m *Mesh) followClaims(ctx context.Context) error {
	cursor := m.tables.Nodes.Cursor()
	defer cursor.Close()
	// A row that was judged by the old claims may be written a moment after they changed, so all is
	// judged once more when they have been quiet.
	late := time.NewTimer(0)
	defer late.Stop()
	for {
		revision := m.tables.Nodes.Revision()
		changed := false
		for _, c := range cursor.Next(0) {
			if c.Deleted {
				changed = m.claims.remove(c.Key) || changed
			} else {
				changed = m.claims.set(c.Key, c.Value) || changed
			}
		}
		m.claims.advance(revision)
		if changed {
			m.judgeAgain()
			late.Reset(time.Second)
		}
		wctx, cancel := context.WithCancel(ctx)
		woken := make(chan error, 1)
		go func() { woken <- cursor.Wait(wctx) }()
		select {
		case err := <-woken:
			cancel()
			if err != nil {
				return nil // ctx ended
			}
		case <-m.repinned:
			cancel()
			<-woken
			m.judgeAgain()
			late.Reset(time.Second)
		case <-late.C:
			cancel()
			<-woken
			m.judgeAgain()
		}
	}
}

// judgeAgain takes back what remotes may not claim any more, and lets them claim what they may now.
func (m *Mesh) judgeAgain() {
	m.own.again.ask(m.own.faults)
	bySource := make(map[state.Source]*remote)
	m.mu.Lock()
	for _, r := range m.remotes {
		bySource[r.source] = r
	}
	m.mu.Unlock()
	if len(bySource) == 0 {
		return
	}
	for row := range m.tables.Nodes.All() {
		if r := bySource[row.Source]; r != nil {
			recheck(r, row, func(s *session) *mirror[schema.NodeKey, schema.Node] { return s.nodes })
		}
	}
	for row := range m.tables.IPs.All() {
		if r := bySource[row.Source]; r != nil {
			recheck(r, row, func(s *session) *mirror[schema.IPKey, schema.IP] { return s.ips })
		}
	}
	for row := range m.tables.Services.All() {
		if r := bySource[row.Source]; r != nil {
			recheck(r, row, func(s *session) *mirror[schema.ServiceKey, schema.ClusterService] { return s.services })
		}
	}
	for _, r := range bySource {
		r.listAgain()
	}
}

// Guards are those of the remotes' stores, by cluster.
func (m *Mesh) Guards() map[string]*kvstore.Guard {
	m.mu.Lock()
	defer m.mu.Unlock()
	guards := make(map[string]*kvstore.Guard, len(m.remotes))
	for name, r := range m.remotes {
		guards[name] = r.guard
	}
	return guards
}

// Status tells how the mesh stands.
func (m *Mesh) Status() Status {
	m.mu.Lock()
	st := Status{Directory: DirectoryStatus{m.cfg.Dir, m.read, m.named, m.problem}}
	remotes := make([]*remote, 0, len(m.remotes))
	for _, r := range m.remotes {
		remotes = append(remotes, r)
	}
	m.mu.Unlock()
	slices.SortFunc(remotes, func(a, b *remote) int { return strings.Compare(a.name, b.name) })
	beside := m.claims.besides() // one walk over all nodes, for all remotes
	for _, r := range remotes {
		rs := r.status()
		if rs.Pin != nil {
			rs.Pin.Beside = beside[r.name]
		}
		st.Remotes = append(st.Remotes, rs)
	}
	return st
}
