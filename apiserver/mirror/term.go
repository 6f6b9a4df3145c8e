// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/clustermesh"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// resources are the kinds of rows that may be copied.
var resources = [...]schema.Resource{
	schema.ResourceNodes, schema.ResourceIdentities, schema.ResourceIPs, schema.ResourceServices, schema.ResourceEndpointSlices,
}

// leader is the source of what a term wants to stand in our store.
const leader state.Source = "leader"

// term is one time of leading. What it wants to stand are three tables, each with a store that keeps
// ours equal to it, and a publication for each remote; their tables are never marked synced, so that
// nothing goes that the term did not decide about.
type term struct {
	m     *Mirror
	fence []clientv3.Cmp
	log   *slog.Logger

	configs *state.Table[string, schema.ClusterConfig]
	marks   *state.Table[string, string]
	rows    *state.Table[string, schema.Mirror]

	publications map[string]*publication
	said         map[string]time.Time // when each row was written
	warned       bool                 // of an empty directory
}

func newTerm(m *Mirror, fence []clientv3.Cmp) *term {
	return &term{
		m: m, fence: fence, log: m.log,
		configs:      state.NewTable[string]("wanted-configs", state.Equal[schema.ClusterConfig]),
		marks:        state.NewTable[string]("wanted-marks", state.Equal[string]),
		rows:         state.NewTable[string]("wanted-mirrors", state.Equal[schema.Mirror]),
		publications: map[string]*publication{}, said: map[string]time.Time{},
	}
}

// run leads until ctx ends.
func (t *term) run(ctx context.Context) error {
	if err := t.m.stored.listed(ctx); err != nil {
		return nil // ctx ended
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{
		storeOf(t, schema.ClusterConfigs(), t.configs).Run,
		storeOf(t, schema.SyncedMarks(), t.marks).Run,
		storeOf(t, schema.Mirrors(), t.rows).Run,
	} {
		g.Go(func() error { return run(ctx) })
	}
	g.Go(func() error { return t.look(ctx, g) })
	return g.Wait()
}

// storeOf keeps rows of our store equal to a table, while this term lasts.
func storeOf[K comparable, V any](t *term, codec schema.Codec[K, V], table *state.Table[K, V]) *kvstore.Store[K, V] {
	return kvstore.NewStore(t.m.client, nil, codec, table, kvstore.StoreConfig[K, V]{
		Owns: func(K, V) bool { return true }, Enforce: true, Fence: t.fence, DeleteAlone: true, Follow: t.m.cfg.Follow,
	}, t.log)
}

// look compares what is with what should be, again and again.
func (t *term) look(ctx context.Context, g *errgroup.Group) error {
	tick := time.NewTicker(t.m.cfg.Look)
	defer tick.Stop()
	for {
		if err := t.turn(ctx, g, time.Now()); err != nil && ctx.Err() == nil {
			t.log.Info("mirror has not done all", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// turn looks at each remote that has a client file, or of which our store has something.
func (t *term) turn(ctx context.Context, g *errgroup.Group, now time.Time) error {
	asked := t.m.asked() // before it is known who is there
	status := t.m.mesh.Status()
	if status.Directory.Read.IsZero() {
		return nil // nobody knows yet which remotes there are
	}
	named := map[string]bool{}
	pending := 0
	for _, r := range status.Remotes {
		named[r.Name] = true
		t.publish(ctx, g, r, now)
		pending += t.publications[r.Name].pending()
	}
	t.m.mu.Lock()
	t.m.pending = pending
	t.m.mu.Unlock()
	var failed error
	if status.Directory.Problem == "" {
		failed = t.removed(ctx, named, asked, status.Directory.Named, now)
	}
	if err := t.forgets(ctx, now); err != nil {
		failed = err
	}
	return failed
}

// removed drains what has no client file any more, after the grace; what has left, as soon as it is told.
// asked numbers the last time that a session had asked for copies before it was known which remotes are
// named; ever says that the directory has named a remote since this mirror began.
func (t *term) removed(ctx context.Context, named map[string]bool, asked map[string]int, ever bool, now time.Time) error {
	var gone []string
	for name := range t.m.stored.clusters() {
		if !named[name] {
			gone = append(gone, name)
		}
	}
	// A directory that was never seen with a file may be a mount that failed before we began.
	if lost := slices.DeleteFunc(slices.Clone(gone), t.m.stored.left); len(lost) > 0 && !ever {
		if !t.warned {
			t.warned = true
			t.log.Warn("the directory of client files is empty, and our store has copies: taken for a mount that failed; "+
				"forget them with 'weft mesh forget', or put a file back", "directory", t.m.cfg.Dir, "clusters", lost)
		}
		for _, name := range lost {
			row, _ := t.m.stored.rows.Get(name)
			said := row.Value
			said.Connected, said.Holding, said.Complete = false, false, false
			said.Reason = "the directory of client files is empty, which is taken for a mount that failed: put its file back, or weft mesh forget " + name
			t.say(name, said, now)
		}
		gone = slices.DeleteFunc(gone, func(name string) bool { return !t.m.stored.left(name) })
	}
	for _, name := range gone {
		row, _ := t.m.stored.rows.Get(name)
		// Agents that know it by its copy are to see that it goes on purpose before it goes.
		left := t.m.stored.left(name)
		told := !row.Value.Removed.IsZero()
		since := row.Value.Removed
		if t.publications[name] != nil {
			since = time.Time{} // it was there until now
		}
		t.stop(name)
		if since.IsZero() || since.After(now) {
			since = now
		}
		if mine, ok := t.rows.Get(name); ok && !mine.Value.Removed.IsZero() {
			since = mine.Value.Removed
		}
		if now.Sub(since) < t.m.cfg.Grace && !(left && told) {
			said := row.Value
			said.Removed, said.Connected, said.Holding, said.Complete = since, false, false, false
			said.Reason = fmt.Sprintf("its client file was removed; the copy goes after %v", t.m.cfg.Grace)
			if left {
				said.Reason = "it has left; the copy goes"
			}
			t.say(name, said, now)
			continue
		}
		if err := t.drain(ctx, name); err != nil {
			return err
		}
		t.m.dropCopy(name, asked[name])
		t.m.kept.drop(name)
		t.log.Info("copy of a removed cluster deleted", "cluster", name, "removed", since)
	}
	return nil
}

// drain deletes all that stands of a remote: first what readers look at before they read the rest, its
// row last, by which a drain that was cut short is known again.
func (t *term) drain(ctx context.Context, name string) error {
	t.stop(name)
	steps := [][]clientv3.Op{{
		clientv3.OpDelete(schema.ClusterConfigPrefix + name),
		clientv3.OpDelete(schema.SyncedPrefix+name+"/", clientv3.WithPrefix()),
	}}
	for _, r := range resources {
		steps = append(steps, []clientv3.Op{clientv3.OpDelete(schema.MirrorPrefix(name, r), clientv3.WithPrefix())})
	}
	t.configs.Delete(leader, 0, name)
	for _, r := range resources {
		t.marks.Delete(leader, 0, markTail(name, r))
	}
	for _, ops := range steps {
		if err := t.commit(ctx, ops...); err != nil {
			return fmt.Errorf("drain %s: %w", name, err)
		}
	}
	t.rows.Delete(leader, 0, name)
	delete(t.said, name)
	if err := t.commit(ctx, clientv3.OpDelete(schema.MirrorsPrefix+name)); err != nil {
		return fmt.Errorf("drain %s: %w", name, err)
	}
	return nil
}

// commit does operations if this term still lasts.
func (t *term) commit(ctx context.Context, ops ...clientv3.Op) error {
	resp, err := t.m.client.Txn(ctx).If(t.fence...).Then(ops...).Commit()
	if err == nil && !resp.Succeeded {
		err = kvstore.ErrFenced
	}
	return err
}

// forgets does what persons decided about remotes that are gone for good.
func (t *term) forgets(ctx context.Context, now time.Time) error {
	codec := schema.Forgets()
	for row := range t.m.stored.forgets.All() {
		name, f := row.Key, row.Value
		key := codec.Prefix + name
		switch {
		case !f.Done.IsZero():
			if now.Sub(f.Done) > forgetKept {
				if err := t.commit(ctx, clientv3.OpDelete(key)); err != nil {
					return fmt.Errorf("forget %s: %w", name, err)
				}
			}
		case name == t.m.cfg.Cluster, t.m.connected(name):
			t.log.Warn("cluster not forgotten: it is ours, or connected; remove its client file instead", "cluster", name, "by", f.By)
			if err := t.commit(ctx, clientv3.OpDelete(key)); err != nil {
				return fmt.Errorf("forget %s: %w", name, err)
			}
		default:
			if err := t.drain(ctx, name); err != nil {
				return err
			}
			t.m.forget(name)
			f.Done = now
			value, err := codec.Encode(name, f)
			if err == nil {
				err = t.commit(ctx, clientv3.OpPut(key, string(value)))
			}
			if err != nil {
				return fmt.Errorf("forget %s: %w", name, err)
			}
			t.log.Info("remote cluster forgotten by decision", "cluster", name, "by", f.By)
		}
	}
	return nil
}

// forgetKept is how long a decision that was carried out stays, so that every mirror sees it.
const forgetKept = time.Hour

// say writes the row of a remote if it says something else than before, or nothing was said for long.
func (t *term) say(name string, row schema.Mirror, now time.Time) {
	row.By = t.m.cfg.Name
	if last, ok := t.rows.Get(name); ok && now.Sub(t.said[name]) < t.m.cfg.Say {
		same := row
		same.Confirmed, same.Heartbeat, same.Written, same.Rows = last.Value.Confirmed, last.Value.Heartbeat, last.Value.Written, last.Value.Rows
		if same == last.Value {
			return
		}
	}
	row.Written = second(now)
	t.rows.Put(leader, 0, name, row)
	t.said[name] = now
}

// stop ends the publication of a remote; what stands, stays.
func (t *term) stop(name string) {
	if p := t.publications[name]; p != nil {
		p.stop()
		delete(t.publications, name)
	}
}

// publish keeps what stands of a remote that has a client file equal to what it has.
func (t *term) publish(ctx context.Context, g *errgroup.Group, r clustermesh.RemoteStatus, now time.Time) {
	p := t.publications[r.Name]
	if c, ok := t.m.copyOf(r.Name); ok && (p == nil || p.id != c.id || len(p.stores) != len(c.tables)) {
		if err := t.begin(ctx, g, r, c); err != nil && ctx.Err() == nil {
			t.log.Info("copy of a remote not begun", "cluster", r.Name, "error", err)
		}
		p = t.publications[r.Name]
	}
	before, _ := t.m.stored.rows.Get(r.Name)
	row := before.Value
	row.Connected, row.Holding, row.Reason, row.Removed, row.Complete = r.Connected, r.Hold.Holding, r.Reason, time.Time{}, false
	row.Epoch, row.Extra = t.m.guard.Status().Epoch, before.Value.Extra
	row.OurCertificate, row.ServerCertificate = second(r.Certificates.Ours), second(r.Certificates.Server)
	if row.Reason == "" && !r.Connected {
		row.Reason = r.LastError
	}
	if r.Heartbeat.After(row.Heartbeat) {
		row.Heartbeat = second(r.Heartbeat)
	}
	if p != nil {
		row.ID, row.Rows = p.id, p.rows()
		settled := p.settled()
		for resource := range settled {
			t.mark(r.Name, resource, now)
		}
		if complete := r.Connected && !r.Hold.Holding && len(settled) == len(p.stores); complete {
			row.Complete = r.Phase == clustermesh.PhaseReady
			if at := confirmed(r); at.After(row.Confirmed) {
				row.Confirmed = at
			}
		}
	}
	t.say(r.Name, row, now)
}

// begin publishes the copies of a remote. What stands of it under another id goes first: readers must not
// take rows of the one for those of the other.
func (t *term) begin(ctx context.Context, g *errgroup.Group, r clustermesh.RemoteStatus, c copied) error {
	name := r.Name
	if stored, ok := t.m.stored.configs.Get(name); ok && stored.Value.ID != c.id {
		t.log.Info("cluster id of a remote changed, its copy begins anew", "cluster", name, "from", stored.Value.ID, "to", c.id)
		if err := t.drain(ctx, name); err != nil {
			return err
		}
	}
	t.stop(name)
	// Readers wait for the marks, which come after the rows.
	t.configs.Put(leader, 0, name, schema.ClusterConfig{
		ID: c.id, SyncedCanaries: true, Cached: true, MaxConnectedClusters: r.Config.MaxConnectedClusters,
		EndpointSlices: r.Config.EndpointSlices,
	})
	t.publications[name] = newPublication(ctx, g, t, name, c)
	return nil
}

// mark says that the copy of one resource is complete. A mark that stands stays as it is.
func (t *term) mark(name string, r schema.Resource, now time.Time) {
	tail := markTail(name, r)
	if _, wanted := t.marks.Get(tail); wanted {
		return
	}
	text := string(schema.EncodeTime(now))
	if old, ok := t.m.stored.marks.Get(tail); ok {
		text = old.Value
	}
	t.marks.Put(leader, 0, tail, text)
}

// confirmed is when all resources of a remote were known to be right.
func confirmed(r clustermesh.RemoteStatus) (oldest time.Time) {
	for _, x := range r.Resources {
		if oldest.IsZero() || x.Confirmed.Before(oldest) {
			oldest = x.Confirmed
		}
	}
	return second(oldest)
}

// second is a time as rows have it.
func second(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Truncate(time.Second)
}
