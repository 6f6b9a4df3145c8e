// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// session is the time in which a remote has one cluster id and one connection.
type session struct {
	remote *remote
	client *kvstore.Client
	config schema.ClusterConfig
	// copied: the copy in our own store is read.
	copied bool

	nodes      *mirror[schema.NodeKey, schema.Node]
	ips        *mirror[schema.IPKey, schema.IP]
	identities *mirror[schema.IdentityKey, string]
	services   *mirror[schema.ServiceKey, schema.ClusterService]
	mirrors    []mirroring

	heart *state.Table[string, string]
	marks *state.Table[string, string]

	mu sync.Mutex
	// waiting says for what each resource waits before it begins.
	waiting map[schema.Resource]string
	// problem is one of the cluster-config, found after the session began.
	problem string
}

// mirroring is a mirror of any kind of row.
type mirroring interface {
	kind() schema.Resource
	copies(to *state.Table[string, []byte])
	ofCopy()
	restore(rows iter.Seq[kvstore.KV], at time.Time)
	run(ctx context.Context, listed func()) error
	listAgain()
	status() ResourceStatus
}

func newSession(r *remote, client *kvstore.Client, config schema.ClusterConfig, copied bool) *session {
	scope := schema.Scope{Cluster: r.name, ClusterID: config.ID, MaxClusters: r.cfg.MaxClusters, Cached: config.Cached}
	j := judge{r.claims, r.name, config.ID}
	s := &session{
		remote: r, client: client, config: config, copied: copied,
		nodes:      newMirror(schema.ResourceNodes, r.source, r.tables.Nodes, schema.Nodes(scope), j.node, client, r.guard, r.cfg.Relist, r.log),
		ips:        newMirror(schema.ResourceIPs, r.source, r.tables.IPs, schema.IPs(scope), j.ip, client, r.guard, r.cfg.Relist, r.log),
		identities: newMirror(schema.ResourceIdentities, r.source, r.tables.Identities, schema.Identities(scope), j.identity, client, r.guard, r.cfg.Relist, r.log),
		services:   newMirror(schema.ResourceServices, r.source, r.tables.Services, schema.Services(scope), j.service, client, r.guard, r.cfg.Relist, r.log),
		heart:      state.NewTable[string]("heartbeat", state.Equal[string]),
		marks:      state.NewTable[string]("synced marks", state.Equal[string]),
		waiting:    make(map[schema.Resource]string),
	}
	s.mirrors = []mirroring{s.nodes, s.identities, s.ips, s.services}
	if r.cfg.Copies != nil && config.EndpointSlices != schema.EndpointSlicesNone {
		s.mirrors = append(s.mirrors, newMirror(schema.ResourceEndpointSlices, r.source, r.slices, schema.EndpointSlices(scope), j.slice, client, r.guard, r.cfg.Relist, r.log))
	}
	for _, m := range s.mirrors {
		if copied {
			m.ofCopy()
		}
		if r.cfg.Copies != nil {
			m.copies(r.cfg.Copies(r.name, config.ID, m.kind()))
		}
		if rows, at := r.kept(m.kind(), config.ID); rows != nil {
			m.restore(rows, at)
		}
	}
	return s
}

// run mirrors until ctx ends or the remote turns out to be another than it said.
func (s *session) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.remote.guard.Run(ctx) })
	if !s.copied { // the heartbeat beside a copy is our own
		g.Go(func() error { return s.followText(ctx, schema.HeartbeatReadPrefix, s.heart) })
	}
	if s.remote.views != nil {
		g.Go(func() error { return s.keepView(ctx) })
	}
	if s.config.SyncedCanaries {
		g.Go(func() error { return s.followText(ctx, schema.SyncedPrefix+s.remote.name+"/", s.marks) })
	}
	for _, m := range s.mirrors {
		g.Go(func() error {
			if err := s.await(ctx, m.kind()); err != nil {
				return nil // ctx ended
			}
			return m.run(ctx, func() { s.remote.isListed(m.kind(), true) })
		})
	}
	g.Go(func() error { return s.recheckConfig(ctx) })
	g.Go(func() error { return s.keepID(ctx) })
	return g.Wait()
}

// await returns when a resource may be listed: when its synced mark is there, where the remote
// writes them; and addresses after the nodes, whose pod CIDRs they are checked against. Where that
// takes long, what an earlier run knew is in force meanwhile.
func (s *session) await(ctx context.Context, r schema.Resource) error {
	defer s.wait(r, "")
	long := make(chan struct{})
	timer := time.AfterFunc(s.remote.cfg.Connect, func() {
		defer close(long)
		s.remote.restore(r)
	})
	defer func() {
		if !timer.Stop() {
			<-long // nothing is restored beside a mirror that runs
		}
	}()
	if s.config.SyncedCanaries {
		key := schema.SyncedKey(s.remote.name, r, s.config.Cached)
		s.wait(r, "for the key "+key)
		tail := key[len(schema.SyncedPrefix+s.remote.name+"/"):]
		cursor := s.marks.Cursor()
		defer cursor.Close()
		for {
			if _, ok := s.marks.Get(tail); ok {
				break
			}
			if err := cursor.Wait(ctx); err != nil {
				return err
			}
			cursor.Next(0)
		}
	}
	if r != schema.ResourceIPs && r != schema.ResourceServices {
		return nil
	}
	s.wait(r, "for the list of nodes")
	return s.remote.claims.after(ctx, s.nodes.watch.Listed(), s.nodes.table)
}

func (s *session) wait(r schema.Resource, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[r] = what
}

// followText mirrors keys with short texts into a table of this session.
func (s *session) followText(ctx context.Context, prefix string, table *state.Table[string, string]) error {
	codec := schema.Codec[string, string]{
		Prefix:    prefix,
		FormatKey: func(k string) string { return k },
		ParseKey:  func(tail string) (string, error) { return tail, nil },
		Decode: func(k string, b []byte) (string, error) {
			if _, err := schema.DecodeTime(k, b); err != nil {
				return "", err
			}
			return string(b), nil
		},
		Equal: state.Equal[string],
	}
	return kvstore.NewWatch(s.client, codec, table, kvstore.WatchConfig{Source: s.remote.source}, s.remote.log).Run(ctx)
}

// recheckConfig reads the cluster-config again and again, and sooner while something is wrong with it or it
// cannot be read: one that a store lost is back within seconds. Only a valid one with another id that is
// free ends the session: whatever else is wrong with it is shown, and what works goes on.
func (s *session) recheckConfig(ctx context.Context) error {
	cfg := s.remote.cfg
	again, pause := time.NewTimer(cfg.ConfigPoll), cfg.RetryMin
	defer again.Stop()
	pin, changed := s.remote.ids.pinned(s.remote.name)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			was := pin
			if pin, changed = s.remote.ids.pinned(s.remote.name); pin == was {
				continue // it was another remote's
			}
		case <-again.C:
		}
		sound, err := s.judgeConfig(ctx)
		if err != nil {
			return err
		}
		if sound {
			pause = cfg.RetryMin
			again.Reset(cfg.ConfigPoll)
		} else {
			again.Reset(min(pause, cfg.ConfigPoll))
			pause = min(2*pause, cfg.RetryMax)
		}
	}
}

// judgeConfig reads the cluster-config and shows what is wrong with it. It is not sound either while it
// cannot be read, of which the mirrors tell. An error ends the session.
func (s *session) judgeConfig(ctx context.Context) (sound bool, err error) {
	config, err := s.remote.readConfig(ctx, s.client)
	if err == nil {
		err = s.remote.check(config)
	} else if !errors.Is(err, errNoConfig) && !errors.Is(err, errRefused) {
		return false, nil
	}
	if err == nil && config.ID != s.config.ID {
		owner := s.remote.ids.wouldOwn(s.remote.name, config.ID)
		if owner == s.remote.name {
			return false, fmt.Errorf("%w from %d to %d", errNewID, s.config.ID, config.ID)
		}
		err = fmt.Errorf("cluster-config %w: cluster id %d belongs to cluster %s", errRefused, config.ID, owner)
	}
	problem := ""
	if err != nil {
		problem = fmt.Sprintf("%v; what was mirrored with id %d goes on", err, s.config.ID)
		s.remote.refusal(err)
	} else if config != s.config {
		return false, errors.New("cluster-config changed: connecting anew")
	}
	s.mu.Lock()
	s.problem = problem
	s.mu.Unlock()
	return problem == "", nil
}

// keepID ends the session when another remote with the same id goes first.
func (s *session) keepID(ctx context.Context) error {
	for {
		owner, changed := s.remote.ids.owner(s.config.ID)
		if owner != s.remote.name {
			return fmt.Errorf("%w: %d belongs to cluster %s, which goes first: give one of them another", errLostID, s.config.ID, owner)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// keepView ends the session when our own store has a complete copy and the session does not read it, or
// the other way round.
func (s *session) keepView(ctx context.Context) error {
	for {
		present, changed := s.remote.views.present(s.remote.name)
		switch {
		case present && !s.copied:
			return fmt.Errorf("%w: our store has a copy", errView)
		case !present && s.copied:
			return fmt.Errorf("%w: our store has no copy any more", errView)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// heartbeat is when the last sign of life arrived.
func (s *session) heartbeat() time.Time {
	row, _ := s.heart.Get("")
	return row.Changed
}

// describe fills in what a session adds to the status of its remote.
func (s *session) describe(st *RemoteStatus) {
	if at := s.heartbeat(); !at.IsZero() {
		st.Heartbeat = at
	}
	s.remote.mu.Lock()
	known := maps.Clone(s.remote.listed)
	s.remote.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	listed := true
	var newest ResourceStatus
	for _, m := range s.mirrors {
		r := m.status()
		r.Listed, r.Waiting = known[r.Resource], s.waiting[r.Resource]
		st.Connected = st.Connected || r.Connected
		listed = listed && r.Listed && r.Waiting == ""
		if r.err != nil && r.errAt.After(newest.errAt) {
			newest = r
		}
		st.Resources = append(st.Resources, r)
	}
	if newest.err != nil {
		st.LastError, st.LastErrorAt = newest.err.Error(), newest.errAt
	}
	switch {
	case !listed:
		st.Phase = PhaseSyncing
		for _, r := range st.Resources {
			if r.Waiting != "" && st.Reason == "" {
				st.Reason = fmt.Sprintf("%s wait %s", r.Resource, r.Waiting)
			}
		}
	case st.Connected:
		st.Phase = PhaseReady
	default:
		st.Phase = PhaseAway
	}
	if !st.Connected && newest.err != nil {
		st.Reason = newest.err.Error()
	}
	if s.problem != "" {
		st.Reason = s.problem
	}
	if s.copied {
		s.remote.views.describe(st)
	}
}
