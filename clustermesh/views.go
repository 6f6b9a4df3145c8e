// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// mirrorSilence is how long the mirror may say nothing of a copy before nobody can tell how old it is: it
// speaks every minute, and another takes over within seconds.
const mirrorSilence = 3 * time.Minute

// viewsGrace is how long our own store may take to say which copies there are before remotes are read
// themselves. It answers within milliseconds, or is away.
const viewsGrace = time.Second

// drainSkew is how long after a cluster-config the marks of its copy have to stand to be more than a
// deletion of both that one of two watches is behind with. Cilium's mirror leaves them for 3 minutes.
const drainSkew = 2 * time.Second

// views are the copies of remotes in our own store: which there are, and what the mirror says of them.
type views struct {
	own     string
	configs *state.Table[string, schema.ClusterConfig]
	marks   *state.Table[string, string]
	rows    *state.Table[string, schema.Mirror]
	forgets *state.Table[string, schema.Forget]
	renamed func() // is called when other remotes have a copy than before
	runs    []func(context.Context) error
	lists   []<-chan struct{}

	mu      sync.Mutex
	said    map[string]saying
	ended   map[string]bool      // remotes whose copy went on purpose, and did not come back
	lost    map[string]time.Time // when the cluster-config of a copy was first missed, while it is
	changed chan struct{}        // closed and replaced when a copy may have come or gone
}

// saying is the row of a copy, and when it was heard by our clock. One that was there at the first look may
// be older than that.
type saying struct {
	schema.Mirror
	heard time.Time
	first bool
}

// ownStore is the source of what is read from our own store.
const ownStore state.Source = "etcd"

func newViews(own string, c *kvstore.Client, follow kvstore.WatchConfig, renamed func(), log *slog.Logger) *views {
	v := &views{
		own: own, renamed: renamed,
		configs: state.NewTable[string]("cluster-configs", state.Equal[schema.ClusterConfig]),
		marks:   state.NewTable[string]("synced-marks", state.Equal[string]),
		rows:    state.NewTable[string]("mirrors", state.Equal[schema.Mirror]),
		forgets: state.NewTable[string]("forgets", state.Equal[schema.Forget]),
		said:    map[string]saying{}, ended: map[string]bool{}, lost: map[string]time.Time{}, changed: make(chan struct{}),
	}
	follow.Source, follow.Guard = ownStore, nil
	configs := kvstore.NewWatch(c, schema.ClusterConfigs(), v.configs, follow, log)
	marks := kvstore.NewWatch(c, schema.SyncedMarks(), v.marks, follow, log)
	rows := kvstore.NewWatch(c, schema.Mirrors(), v.rows, follow, log)
	forgets := kvstore.NewWatch(c, schema.Forgets(), v.forgets, follow, log)
	v.runs = []func(context.Context) error{configs.Run, marks.Run, rows.Run, forgets.Run, v.tell, v.hear}
	v.lists = []<-chan struct{}{configs.Listed(), marks.Listed(), rows.Listed(), forgets.Listed()}
	return v
}

// run follows until ctx ends.
func (v *views) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range v.runs {
		g.Go(func() error { return run(ctx) })
	}
	return g.Wait()
}

// tell says that copies may have come or gone.
func (v *views) tell(ctx context.Context) error {
	configs, marks := v.configs.Cursor(), v.marks.Cursor()
	defer configs.Close()
	defer marks.Close()
	return state.Derive(ctx, nil, "", func() error {
		changes := configs.Next(0)
		marks.Next(0)
		v.mu.Lock()
		for _, c := range changes {
			switch _, missed := v.lost[c.Key]; {
			case !c.Deleted:
				delete(v.lost, c.Key)
			case c.Value.Cached && !missed:
				v.lost[c.Key] = c.Changed
			}
		}
		close(v.changed)
		v.changed = make(chan struct{})
		v.mu.Unlock()
		v.renamed()
		return nil
	}, configs, marks)
}

// hear takes note of when the mirror says something, and of copies that go on purpose.
func (v *views) hear(ctx context.Context) error {
	rows, forgets := v.rows.Cursor(), v.forgets.Cursor()
	defer rows.Close()
	defer forgets.Close()
	return state.Derive(ctx, nil, "", func() error {
		if v.heard(rows.Next(0), forgets.Next(0)) {
			v.renamed()
		}
		return nil
	}, rows, forgets)
}

// heard tells whether other remotes have a copy now, or lose it.
func (v *views) heard(rows []state.Change[string, schema.Mirror], forgets []state.Change[string, schema.Forget]) (news bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, c := range rows {
		before, known := v.said[c.Key]
		going := !c.Value.Removed.IsZero() // of a row that is deleted, what it said last
		if f, decided := v.forgets.Get(c.Key); c.Deleted && decided && !f.Value.Done.IsZero() && !f.Value.Done.Before(c.Value.Written) {
			going = true // it was forgotten: two watches tell of it and of the row, in any order
		}
		news = news || c.Deleted || !known || going == before.Removed.IsZero()
		if c.Deleted {
			delete(v.said, c.Key)
		} else {
			v.said[c.Key] = saying{c.Value, c.Changed, !known}
		}
		if delete(v.ended, c.Key); going {
			v.ended[c.Key] = true
		}
	}
	for _, c := range forgets {
		// It is done after the copy has gone; one that stands came back.
		if _, stands := v.said[c.Key]; !c.Deleted && !c.Value.Done.IsZero() && !stands {
			v.ended[c.Key], news = true, true
		}
	}
	return news
}

// named are the remotes of which our store has a copy, and whether our mirror is about to take it away.
func (v *views) named() map[string]bool {
	names := map[string]bool{}
	for row := range v.configs.All() {
		v.mu.Lock()
		said := v.said[row.Key]
		v.mu.Unlock()
		if row.Value.Cached && row.Key != v.own && schema.CheckClusterName(row.Key) == nil {
			names[row.Key] = !said.Removed.IsZero()
		}
	}
	return names
}

// over tells whether a copy went, or goes, on purpose.
func (v *views) over(cluster string) bool {
	v.mu.Lock()
	ended, lost := v.ended[cluster], v.lost[cluster]
	_, ours := v.said[cluster]
	v.mu.Unlock()
	return ended || !ours && !lost.IsZero() && v.drains(cluster, lost)
}

// drains tells whether Cilium's mirror, which speaks of nothing, takes away a copy whose cluster-config is
// missed since a time: that goes three minutes before the marks of the copy do. A store that was lost has
// neither, and of one that was set back the mirror writes both again.
func (v *views) drains(cluster string, since time.Time) bool {
	confirmed := false
	for _, s := range v.marks.Sources() {
		confirmed = confirmed || s.Source == ownStore && s.Confirmed.After(since.Add(drainSkew))
	}
	// Looked for after that: a mark that stands now stood in the store when it confirmed.
	for _, r := range resources() {
		if _, stands := v.marks.Get(strings.TrimPrefix(schema.SyncedKey(cluster, r, true), schema.SyncedPrefix)); stands {
			return confirmed
		}
	}
	return false
}

// known tells whether our store has said which copies there are.
func (v *views) known() bool {
	for _, listed := range v.lists {
		select {
		case <-listed:
		default:
			return false
		}
	}
	return true
}

// listed waits until it is known which copies there are, but not longer than our store may take to answer.
// The error is that of ctx.
func (v *views) listed(ctx context.Context, longest time.Duration) error {
	late := time.NewTimer(longest)
	defer late.Stop()
	for _, listed := range v.lists {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return nil
		case <-listed:
		}
	}
	return nil
}

// present tells whether our store has a complete copy of a remote, and returns a channel that is closed
// when that may have changed.
func (v *views) present(cluster string) (bool, <-chan struct{}) {
	v.mu.Lock()
	changed := v.changed // before the look
	v.mu.Unlock()
	config, ok := v.configs.Get(cluster)
	if !ok || !config.Value.Cached {
		return false, changed
	}
	for _, r := range resources() {
		tail := strings.TrimPrefix(schema.SyncedKey(cluster, r, true), schema.SyncedPrefix)
		if _, ok := v.marks.Get(tail); config.Value.SyncedCanaries && !ok {
			return false, changed
		}
	}
	return true, changed
}

// copyOf is what the mirror said last of a copy, with times by our clock: the differences of its own, from
// when it was heard. Of what was there before we looked, the clocks have to do.
func (v *views) copyOf(cluster string) *CopyStatus {
	v.mu.Lock()
	s, ok := v.said[cluster]
	v.mu.Unlock()
	if !ok {
		return &CopyStatus{}
	}
	ours := func(t time.Time) time.Time {
		if t.IsZero() {
			return t
		}
		at := s.heard.Add(-s.Written.Sub(t))
		if s.first && t.Before(at) {
			return t
		}
		return at
	}
	return &CopyStatus{
		By: s.By, Said: ours(s.Written), Confirmed: ours(s.Confirmed), Connected: s.Connected, Holding: s.Holding, Reason: s.Reason,
	}
}

// describe makes the status of a remote that is read from its copy that of the copy: what is in step with
// our store is as old as the mirror's last look at the remote.
func (v *views) describe(st *RemoteStatus) {
	c := v.copyOf(st.Name)
	st.Copy = c
	if c.By == "" {
		return // a mirror that says nothing
	}
	v.mu.Lock()
	s := v.said[st.Name]
	v.mu.Unlock()
	if !s.Heartbeat.IsZero() {
		st.Heartbeat = c.Said.Add(-s.Written.Sub(s.Heartbeat))
	}
	for i := range st.Resources {
		if r := &st.Resources[i]; c.Confirmed.Before(r.Confirmed) {
			r.Confirmed = c.Confirmed
		}
	}
	if at := s.OurCertificate; !at.IsZero() && (st.Certificates.Ours.IsZero() || at.Before(st.Certificates.Ours)) {
		st.Certificates.Ours = at
	}
	if !s.ServerCertificate.IsZero() {
		st.Certificates.Server = s.ServerCertificate
	}
	problem := ""
	switch age := time.Since(c.Said); {
	case age > mirrorSilence:
		problem = fmt.Sprintf("the mirror has said nothing of its copy for %v, %s was the last: is an API server with clustermesh-dir running", age.Round(time.Second), c.By)
	case !c.Connected:
		problem = fmt.Sprintf("the API server %s does not reach it: %s", c.By, c.Reason)
	}
	if problem == "" {
		if c.Holding && st.Reason == "" {
			st.Reason = "its store lacks rows that nobody deleted, so its copy in ours stands still"
		}
		return
	}
	st.Connected, st.Reason = false, problem
	if st.Phase == PhaseReady {
		st.Phase = PhaseAway
	}
}
