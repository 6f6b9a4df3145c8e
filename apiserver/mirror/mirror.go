// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/clustermesh"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// office is what mirrors are elected to; Cilium's stand for it too.
const office = "mirror"

// fromStore is the source of rows that are read from our own store.
const fromStore state.Source = "etcd"

// Mirror is one candidate for copying remote clusters into our store. All candidates read the remotes,
// so that one that takes over knows what they have, and what they lost.
type Mirror struct {
	cfg    Config
	client *kvstore.Client
	log    *slog.Logger
	tables clustermesh.Tables
	guard  *kvstore.Guard // of our own store
	nodes  *kvstore.Watch[schema.NodeKey, schema.Node]
	stored *stored
	kept   *kept
	mesh   *clustermesh.Mesh

	mu      sync.Mutex
	copies  map[string]copied
	asks    int // how often a session asked for a table
	leading bool
	pending int // rows of copies that are not written yet
}

// copied is what is to stand in our store of one remote, for as long as it has one cluster id.
type copied struct {
	id uint32
	// asked numbers the last time that a session asked for a table.
	asked  int
	tables map[schema.Resource]*state.Table[string, []byte]
}

// New returns a mirror into the store behind client. Nothing is read before Run.
func New(cfg Config, client *kvstore.Client, reg prometheus.Registerer, log *slog.Logger) (*Mirror, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	m := &Mirror{
		cfg: cfg, client: client, log: log, copies: map[string]copied{},
		tables: clustermesh.Tables{
			Nodes:      state.NewTable[schema.NodeKey]("nodes", schema.Node.Equal),
			IPs:        state.NewTable[schema.IPKey]("ips", state.Equal[schema.IP]),
			Identities: state.NewTable[schema.IdentityKey]("identities", state.Equal[string]),
			Services:   state.NewTable[schema.ServiceKey]("services", schema.ClusterService.Equal),
		},
		guard:  kvstore.NewGuard(client, cfg.ours(), log),
		stored: newStored(cfg, client, log),
	}
	m.kept = newKept(cfg, client, m.tables, log)
	follow := cfg.Follow
	follow.Source, follow.Guard = fromStore, m.guard
	m.nodes = kvstore.NewWatch(client, schema.Nodes(cfg.scope()), m.tables.Nodes, follow, log)
	mesh := cfg.mesh()
	mesh.Kept, mesh.Copies, mesh.Peers = m.kept, m.copiesOf, client
	var err error
	if m.mesh, err = clustermesh.New(mesh, m.tables, reg, log); err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	if reg != nil {
		if err := reg.Register(collector{m}); err != nil {
			return nil, fmt.Errorf("mirror: register metrics: %w", err)
		}
	}
	return m, nil
}

// copiesOf is the table of the copies of one resource. Another cluster id is another cluster: its copies
// begin anew.
func (m *Mirror) copiesOf(cluster string, id uint32, r schema.Resource) *state.Table[string, []byte] {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.copies[cluster]
	if c.id != id {
		c = copied{id: id}
	}
	m.asks++
	c.asked = m.asks
	if c.tables[r] == nil {
		c.tables = maps.Clone(c.tables) // a term may be reading the one before
		if c.tables == nil {
			c.tables = map[schema.Resource]*state.Table[string, []byte]{}
		}
		c.tables[r] = state.NewTable[string](cluster+"/"+string(r), bytes.Equal)
	}
	m.copies[cluster] = c
	return c.tables[r]
}

// copy is what is to stand of a remote, false where it was not reached yet.
func (m *Mirror) copyOf(cluster string) (copied, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.copies[cluster]
	return c, ok
}

// asked numbers the last time that a session asked for copies of each remote.
func (m *Mirror) asked() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	asked := make(map[string]int, len(m.copies))
	for cluster, c := range m.copies {
		asked[cluster] = c.asked
	}
	return asked
}

// dropCopy forgets what was to stand of a remote, unless a session has asked for it since: that one
// writes to its tables, and asks no more.
func (m *Mirror) dropCopy(cluster string, asked int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.copies[cluster].asked == asked {
		delete(m.copies, cluster)
	}
}

// Run mirrors until ctx ends. What stands in our store stays.
func (m *Mirror) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range append(m.stored.runs(), m.guard.Run, m.nodes.Run, m.candidacies, m.forgetting) {
		g.Go(func() error { return run(ctx) })
	}
	g.Go(func() error {
		// What our store has of remotes is known before they are read: what they lack then may be lost.
		if err := m.kept.load(ctx); err != nil {
			return nil // ctx ended
		}
		return m.mesh.Run(ctx)
	})
	return g.Wait()
}

// Status tells how the remotes stand as this mirror reads them.
func (m *Mirror) Status() clustermesh.Status { return m.mesh.Status() }

// Leading tells whether this mirror is the one that writes.
func (m *Mirror) Leading() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leading
}

// candidacies makes this mirror a candidate, again and again.
func (m *Mirror) candidacies(ctx context.Context) error {
	for {
		err := m.stand(ctx)
		if ctx.Err() != nil {
			return nil
		}
		m.log.Warn("no candidate any more, will be again", "election", office, "reason", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(m.cfg.Retry):
		}
	}
}

// stand makes this mirror a candidate until ctx ends or its work breaks.
func (m *Mirror) stand(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	session := kvstore.NewSession(m.client, kvstore.SessionConfig{TTL: m.cfg.LeaderTTL, Revoke: true}, m.log)
	elector := kvstore.NewElector(m.client, session, kvstore.ElectorConfig{
		Name: office, ID: m.cfg.Name, Prefix: schema.MirrorElectionsPrefix, Follow: m.cfg.Follow,
	}, m.log)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return session.Run(ctx) })
	g.Go(func() error {
		defer cancel()
		return elector.Run(ctx, func(ctx context.Context) error {
			fence := elector.Fence()
			if fence == nil {
				return errors.New("the term was over before it began")
			}
			m.lead(true)
			defer m.lead(false)
			return newTerm(m, fence).run(ctx)
		})
	})
	return g.Wait()
}

func (m *Mirror) lead(leading bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leading = leading
	if !leading {
		m.pending = 0
	}
}

// forgetting takes note of remotes that somebody forgets, whether this mirror leads or not: one that takes
// over must not bring them back. The leader forgets after it has deleted the copy.
func (m *Mirror) forgetting(ctx context.Context) error {
	if err := m.stored.listed(ctx); err != nil {
		return nil // ctx ended
	}
	cursor := m.stored.forgets.Cursor()
	defer cursor.Close()
	for first := true; ; first = false {
		for _, c := range cursor.Next(0) {
			// What was done before this mirror began is not in its memory either.
			if !c.Deleted && !m.Leading() && !(first && !c.Value.Done.IsZero()) {
				m.forget(c.Key)
			}
		}
		if err := cursor.Wait(ctx); err != nil {
			return nil // ctx ended
		}
	}
}

func (m *Mirror) forget(cluster string) {
	m.kept.drop(cluster)
	asked := m.asked()
	if !m.connected(cluster) {
		m.dropCopy(cluster, asked[cluster])
	}
	m.mesh.Forget(cluster)
}

// connected tells whether a remote's store is being followed.
func (m *Mirror) connected(cluster string) bool {
	for _, r := range m.mesh.Status().Remotes {
		if r.Name == cluster {
			return r.Connected
		}
	}
	return false
}
