// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// remote is one other cluster: what its file says, what it says about itself, and the mirrors of
// its rows. One run at a time works on it.
type remote struct {
	name   string
	source state.Source
	cfg    Config
	tables Tables
	claims *claims
	ids    *ids
	// guard outlives sessions: it knows the store again, and what is held of it.
	guard *kvstore.Guard
	// views are the copies in our own store, nil where they are not looked for.
	views *views
	// peers are those whose ids are pinned by our own store, nil where they are not looked for.
	peers *peers
	// slices are passed on to copies and to nobody else.
	slices *state.Table[schema.ServiceKey, string]
	log    *slog.Logger

	mu sync.Mutex
	// file is what the directory holds now.
	file file
	// id is the one that its rows were mirrored with, 0 where there are none.
	id      uint32
	session *session
	// restored are the resources that were asked of what an earlier run kept, listed those whose rows
	// are the store's.
	restored, listed map[schema.Resource]bool
	// forgot: what an earlier run kept is of no use.
	forgot bool
	// phase and reason hold while there is no session.
	phase     Phase
	reason    string
	config    ConfigStatus
	refusals  uint64          // of what it says about itself
	server    time.Time       // until when its server's certificate is good
	client    *kvstore.Client // the newest of its own store; nil: there was none
	heartbeat time.Time
	lastErr   error
	lastErrAt time.Time
}

// resources are the kinds of rows that are mirrored.
func resources() []schema.Resource {
	return []schema.Resource{schema.ResourceNodes, schema.ResourceIdentities, schema.ResourceIPs, schema.ResourceServices}
}

func newRemote(name string, cfg Config, tables Tables, claims *claims, ids *ids, views *views, peers *peers, log *slog.Logger) *remote {
	log = log.With("cluster", name)
	guard := cfg.Guard
	guard.Cluster, guard.ReadOnly = name, true
	if cfg.Lineage != "" {
		guard.File = filepath.Join(cfg.Lineage, name)
	}
	return &remote{
		name: name, source: SourceOf(name), cfg: cfg, tables: tables, claims: claims, ids: ids, views: views, peers: peers,
		guard: kvstore.NewGuard(nil, guard, log), log: log, phase: PhaseConnecting,
		slices:   state.NewTable[schema.ServiceKey]("endpoint-slices", state.Equal[string]),
		restored: make(map[schema.Resource]bool), listed: make(map[schema.Resource]bool),
	}
}

// Reasons for the end of a session that are no failure of the connection.
var (
	// errNoConfig: the remote has no cluster-config.
	errNoConfig = errors.New("no cluster-config yet: is its operator running")
	// errRefused: the cluster-config cannot be accepted.
	errRefused = errors.New("refused")
	// errNewID: the remote calls itself by another id than before.
	errNewID = errors.New("the cluster id changed")
	// errNoCopy: nothing says how to reach it but the copy that our store does not have.
	errNoCopy = errors.New("our own store has no complete copy of it, and no client file names it")
	// errView: it is read from another place from now on.
	errView = errors.New("read elsewhere")
	// errLostID: another remote with the same id goes first.
	errLostID = errors.New("the cluster id is another cluster's")
)

// run mirrors the remote until ctx ends. The rows stay; drain removes them.
func (r *remote) run(ctx context.Context, f file) error {
	pause := r.cfg.RetryMin
	for {
		began := time.Now()
		err := r.once(ctx, f)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errView) {
			r.log.Info("remote cluster is read elsewhere from now on", "reason", err)
			pause = r.cfg.RetryMin
			continue
		}
		_, changed := r.ids.owner(0)
		switch {
		case errors.Is(err, errNewID), errors.Is(err, errLostID):
			if rows := r.drop(); rows > 0 {
				r.log.Info("remote cluster drained", "rows", rows, "reason", err)
			}
			pause = r.cfg.RetryMin
			r.forget()
		case time.Since(began) > r.cfg.RetryMax:
			pause = r.cfg.RetryMin // it worked for a while
		}
		r.restore(resources()...)
		r.failed(err)
		wait := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil
		case <-changed: // an id became free, perhaps
			wait.Stop()
		case <-wait.C:
		}
		pause = min(2*pause, r.cfg.RetryMax)
	}
}

// restore takes rows of an earlier run that this one does not know yet, once for each resource: the
// remote cannot be reached, or does not show them. The mirror of the resource is not running. As
// long as the rows of a resource are not listed their source is not synced.
func (r *remote) restore(resources ...schema.Resource) {
	r.mu.Lock()
	resources = slices.DeleteFunc(resources, func(x schema.Resource) bool { return r.restored[x] })
	for _, x := range resources {
		r.restored[x] = true
	}
	held := r.id
	r.mu.Unlock()
	if r.cfg.Kept == nil || len(resources) == 0 {
		return
	}
	id := r.cfg.Kept.ID(r.name)
	if id == 0 || held != 0 && held != id || r.check(schema.ClusterConfig{ID: id, MaxConnectedClusters: r.cfg.MaxClusters}) != nil {
		return
	}
	if held == 0 {
		r.ids.claim(r.name, id)
		if owner, _ := r.ids.owner(id); owner != r.name {
			return
		}
		r.mu.Lock()
		r.id = id
		r.mu.Unlock()
	}
	for _, x := range resources {
		r.cfg.Kept.Restore(r.name, x)
	}
}

// forget says that what an earlier run kept is of no use any more.
func (r *remote) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range resources() {
		r.restored[x] = true
	}
	r.forgot = true
}

// kept are the rows of a resource that an earlier run knew, for its first list.
func (r *remote) kept(x schema.Resource, id uint32) (rows iter.Seq[kvstore.KV], at time.Time) {
	r.mu.Lock()
	needed := !r.forgot && !r.listed[x]
	r.mu.Unlock()
	if r.cfg.Kept == nil || !needed || r.cfg.Kept.ID(r.name) != id {
		return nil, at
	}
	return r.cfg.Kept.Rows(r.name, x)
}

// isListed says that the rows of a resource are those of the store, or that they were dropped.
func (r *remote) isListed(x schema.Resource, listed bool) {
	r.mu.Lock()
	r.listed[x] = listed
	r.mu.Unlock()
	if r.cfg.Kept != nil {
		r.cfg.Kept.Listed(r.name, x, listed)
	}
}

// refusal counts that what the remote says about itself was refused.
func (r *remote) refusal(err error) {
	if errors.Is(err, errRefused) {
		r.mu.Lock()
		r.refusals++
		r.mu.Unlock()
	}
}

// failed records why there is no session. It is logged when the reason is another than before.
func (r *remote) failed(err error) {
	r.refusal(err)
	r.mu.Lock()
	before := r.reason
	switch {
	case errors.Is(err, errNoConfig):
		r.phase, r.reason = PhaseConfiguring, err.Error()
	case errors.Is(err, errRefused), errors.Is(err, errLostID):
		r.phase, r.reason = PhaseRefused, err.Error()
	default:
		r.phase, r.reason = PhaseConnecting, err.Error()
		r.lastErr, r.lastErrAt = err, time.Now()
	}
	said, held, phase := before == r.reason, r.id != 0, r.phase
	r.mu.Unlock()
	if phase == PhaseRefused && !held {
		// It cannot claim anything, so nobody need wait for it.
		r.tables.drop(r.source)
	}
	if !said {
		r.log.Info("remote cluster not connected", "phase", phase, "reason", err)
	}
}

// once connects, reads the cluster-config and runs a session until it ends. A complete copy in our own
// store is read in place of the remote's.
func (r *remote) once(ctx context.Context, f file) error {
	if r.peers != nil {
		if err := r.peers.known(ctx, viewsGrace); err != nil {
			return err
		}
	}
	if r.views != nil {
		if err := r.views.listed(ctx, viewsGrace); err != nil {
			return err
		}
		present, changed := r.views.present(r.name)
		for f.copied && !present {
			r.restore(resources()...)
			r.failed(errNoCopy)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			}
			present, changed = r.views.present(r.name)
		}
		if present {
			return r.from(ctx, r.cfg.Own, true)
		}
	}
	client, err := kvstore.New(f.config, r.log)
	if err != nil {
		return err
	}
	defer client.Close()
	r.mu.Lock()
	r.client = client
	r.mu.Unlock()
	return r.from(ctx, client, false)
}

// from reads the remote from a store, its own or ours, until that ends.
func (r *remote) from(ctx context.Context, client *kvstore.Client, copied bool) error {
	config, err := r.readConfig(ctx, client)
	if err != nil {
		return err
	}
	if err := r.check(config); err != nil {
		return err
	}
	r.mu.Lock()
	held := r.id
	r.mu.Unlock()
	if held != 0 && held != config.ID {
		return fmt.Errorf("%w from %d to %d", errNewID, held, config.ID)
	}
	r.ids.claim(r.name, config.ID)
	if owner, _ := r.ids.owner(config.ID); owner != r.name {
		return fmt.Errorf("%w: %d belongs to cluster %s, which goes first: give one of them another", errLostID, config.ID, owner)
	}
	if copied {
		r.guard.UseCopy(client, r.name)
	} else {
		r.guard.Use(client)
	}
	s := newSession(r, client, config, copied)
	r.mu.Lock()
	r.id, r.session, r.reason = config.ID, s, ""
	r.mu.Unlock()
	r.log.Info("remote cluster connected", "cluster_id", config.ID, "endpoints", client.Endpoints(), "copy", copied)
	err = s.run(ctx)
	r.mu.Lock()
	r.session, r.heartbeat = nil, s.heartbeat()
	r.mu.Unlock()
	return err
}

// readConfig reads what the remote says about itself.
func (r *remote) readConfig(ctx context.Context, client *kvstore.Client) (schema.ClusterConfig, error) {
	codec := schema.ClusterConfigs()
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Connect)
	defer cancel()
	kv, ok, err := client.Get(ctx, codec.Prefix+r.name)
	if err != nil {
		return schema.ClusterConfig{}, fmt.Errorf("read cluster-config: %w", err)
	}
	if !ok {
		return schema.ClusterConfig{}, fmt.Errorf("%w (key %s%s)", errNoConfig, codec.Prefix, r.name)
	}
	config, err := codec.Decode(r.name, kv.Value)
	if err != nil {
		return config, fmt.Errorf("cluster-config %w: %w", errRefused, err)
	}
	r.mu.Lock()
	r.config = ConfigStatus{true, time.Now(), config.ID, config.SyncedCanaries, config.Cached, config.MaxConnectedClusters, config.EndpointSlices}
	r.mu.Unlock()
	return config, nil
}

// check says why a remote with this configuration cannot be one of ours.
func (r *remote) check(config schema.ClusterConfig) error {
	if err := config.CheckRemote(r.cfg.MaxClusters); err != nil {
		return fmt.Errorf("cluster-config %w: %w", errRefused, err)
	}
	if config.ID == r.cfg.ClusterID {
		return fmt.Errorf("cluster-config %w: cluster id %d is ours: give one of the clusters another", errRefused, config.ID)
	}
	if id, _ := r.ids.pinned(r.name); id != 0 && id != config.ID {
		return fmt.Errorf("cluster-config %w: cluster id %d, and it joined with %d: correct it there, or join it again", errRefused, config.ID, id)
	}
	return nil
}

// drop deletes all rows of the remote, held ones too, and what is known of its store. No session may
// be in progress.
func (r *remote) drop() (rows int) {
	rows = r.tables.drop(r.source) + r.slices.Drop(r.source)
	for _, x := range resources() {
		r.isListed(x, false)
	}
	if err := r.guard.Forget(); err != nil {
		r.log.Warn("what was known of a removed cluster's store stays", "error", err)
	}
	r.mu.Lock()
	r.id = 0
	r.mu.Unlock()
	return rows
}

// listAgain lets the mirrors take what they refused before, now that claims are others.
func (r *remote) listAgain() {
	r.mu.Lock()
	s := r.session
	r.mu.Unlock()
	if s != nil {
		for _, m := range s.mirrors {
			m.listAgain()
		}
	}
}

// recheck judges a row again that was taken before, if a session is there to do it.
func recheck[K comparable, V any](r *remote, row state.Row[K, V], of func(*session) *mirror[K, V]) {
	r.mu.Lock()
	s := r.session
	r.mu.Unlock()
	if s != nil {
		of(s).recheck(row)
	}
}

// status tells how the remote stands, but for what it declares beside its pin.
func (r *remote) status() RemoteStatus {
	r.mu.Lock()
	st := RemoteStatus{
		Name: r.name, ID: r.id, Phase: r.phase, Reason: r.reason, NoFile: r.file.copied, Endpoints: slices.Clone(r.file.config.Endpoints),
		Config: r.config, Refusals: r.refusals, Heartbeat: r.heartbeat, Hold: r.guard.Status().Hold,
	}
	if r.lastErr != nil {
		st.LastError, st.LastErrorAt = r.lastErr.Error(), r.lastErrAt
	}
	s, fileErr, file := r.session, r.file.err, r.file.config
	if r.client != nil {
		if end := r.client.ServerCertificateEnd(); !end.IsZero() {
			r.server = end // one before knew another
		}
	}
	st.Certificates.Server = r.server
	r.mu.Unlock()
	if end, err := file.CertificateEnd(); err == nil { // else the connection says what is wrong with it
		st.Certificates.Ours = end
	}
	if pin, ok := r.claims.pinned(r.name); ok {
		st.Pin = &PinStatus{ID: pin.ID, PodCIDRs: pin.PodCIDRs}
	}
	if s != nil {
		s.describe(&st)
	}
	if fileErr != nil {
		if s == nil {
			st.Phase = PhaseInvalid
		}
		st.Reason = fileErr.Error()
	}
	return st
}
