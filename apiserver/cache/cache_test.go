// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// fixture is an etcd and a cache of it that reaches it through a proxy.
type fixture struct {
	*kvstoretest.Server
	direct *kvstore.Client
	cache  *Cache
	edit   func(*Cache) // before it runs; nil: nothing
	stop   func()
}

func newFixture(t *testing.T, cfg Config, before func(*fixture)) *fixture {
	t.Helper()
	f := &fixture{Server: kvstoretest.Start(t, kvstoretest.Options{})}
	f.direct = f.Client()
	if before != nil {
		before(f)
	}
	f.start(t, cfg)
	return f
}

// start runs a cache until the test ends, and waits for its first list.
func (f *fixture) start(t *testing.T, cfg Config) {
	t.Helper()
	f.run(t, cfg)
	f.wantConnected(t)
}

// run runs a cache until the test ends, and waits until it serves anything.
func (f *fixture) run(t *testing.T, cfg Config) {
	t.Helper()
	cfg.Cluster, cfg.PageSize = "east", 50
	if cfg.Probe == 0 {
		cfg.Probe = 100 * time.Millisecond
	}
	c, err := New(kvstoretest.NewClient(t, f.ProxyConfig()), cfg, kvstoretest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	f.cache = c
	if f.edit != nil {
		f.edit(c)
	}
	f.stop = kvstoretest.Go(t, c.Run)
	<-c.Ready()
}

func (f *fixture) wantConnected(t *testing.T) {
	t.Helper()
	kvstoretest.Eventually(t, func() string {
		if st := f.cache.Status(); !st.Connected || f.cache.Generation().Store.Stats().Filling {
			return fmt.Sprintf("not connected: %+v", st)
		}
		return ""
	})
}

// wantSynced waits until a read that asked the etcd is possible.
func (f *fixture) wantSynced(t *testing.T) {
	t.Helper()
	kvstoretest.Eventually(t, func() string {
		fresh, err := f.cache.Sync(t.Context())
		if err != nil || !fresh {
			return fmt.Sprintf("not synced: %v, %+v", err, f.cache.Status())
		}
		return ""
	})
}

// wantEqual compares what cache and etcd have of the prefix, at a revision.
func (f *fixture) wantEqual(t *testing.T, revision int64) {
	t.Helper()
	etcd, err := f.direct.Etcd().Get(t.Context(), "cilium/", clientv3.WithPrefix(), clientv3.WithRev(revision))
	if err != nil {
		t.Fatal(err)
	}
	want := (*pb.RangeResponse)(etcd)
	got, err := f.cache.Generation().Store.Snapshot().Range(&pb.RangeRequest{
		Key: []byte("cilium/"), RangeEnd: []byte("cilium0"), Revision: revision,
	})
	if err != nil {
		t.Fatal(err)
	}
	if revision != 0 {
		want.Header.Revision = got.Header.Revision // the newest at different moments
	}
	if got.Header.Revision != want.Header.Revision || got.Count != want.Count ||
		!proto.Equal(&pb.RangeResponse{Kvs: got.Kvs}, &pb.RangeResponse{Kvs: want.Kvs}) {
		t.Fatalf("at %d (-want +got):\n%s", revision, cmp.Diff(want, got, protocmp.Transform()))
	}
}

// watched is what a watch of the etcd delivers from a revision through another.
func (f *fixture) watched(t *testing.T, from, through int64) []*mvccpb.Event {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	end := f.Put(f.direct, "cilium/state/end", "x")
	var evs []*mvccpb.Event
	for resp := range f.direct.Etcd().Watch(ctx, "cilium/", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(from)) {
		if err := resp.Err(); err != nil {
			t.Fatal(err)
		}
		for _, ev := range resp.Events {
			if ev.Kv.ModRevision <= through {
				evs = append(evs, (*mvccpb.Event)(ev))
			}
			if ev.Kv.ModRevision == end {
				return evs
			}
		}
	}
	t.Fatal("the watch ended")
	return nil
}

// wantHistory compares the events of cache and etcd from a revision on.
func (f *fixture) wantHistory(t *testing.T, from int64) {
	t.Helper()
	f.wantSynced(t)
	s := f.cache.Generation().Store
	through := s.Revision()
	want := f.watched(t, from, through)
	var got []*mvccpb.Event
	for at := from; at <= through; {
		b, err := s.Since(at, 100*overhead, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range b.Changes {
			if c.Kv.ModRevision <= through {
				got = append(got, &mvccpb.Event{Type: c.Type, Kv: c.Kv, PrevKv: c.Prev})
			}
		}
		at = b.Through + 1
	}
	if !proto.Equal(&pb.WatchResponse{Events: want}, &pb.WatchResponse{Events: got}) {
		t.Fatalf("from %d (-want +got):\n%s", from, cmp.Diff(want, got, protocmp.Transform()))
	}
}

// change makes a random revision.
func (f *fixture) change(t *testing.T, r *rand.Rand) {
	t.Helper()
	var ops []clientv3.Op
	used := map[int]bool{}
	for range 1 + r.IntN(4) {
		k := r.IntN(50)
		if used[k] {
			continue
		}
		used[k] = true
		key := fmt.Sprintf("cilium/state/%02d", k)
		if k%10 == 0 {
			key = fmt.Sprintf("elsewhere/%02d", k)
		}
		if r.IntN(3) == 0 {
			ops = append(ops, clientv3.OpDelete(key))
		} else {
			ops = append(ops, clientv3.OpPut(key, fmt.Sprint(r.IntN(9))))
		}
	}
	f.Commit(f.direct, ops...)
}

// TestCache_IsTheEtcd changes a store at random, breaks what can be broken, and compares keys, pinned
// reads and history.
func TestCache_IsTheEtcd(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	f := newFixture(t, Config{}, func(f *fixture) {
		for range 150 {
			f.change(t, r)
		}
	})
	first := f.cache.Generation()
	oldest := int64(1)
	for range 12 {
		for range r.IntN(40) {
			f.change(t, r)
		}
		switch r.IntN(4) {
		case 0:
			f.Proxy.Cut()
		case 1:
			f.wantSynced(t) // compacting more than is known here would be a gap
			if at := f.cache.Generation().Store.Revision(); at > oldest {
				if _, err := f.direct.Etcd().Compact(t.Context(), at); err != nil {
					t.Fatal(err)
				}
				oldest = at
			}
		case 2:
			f.Kill()
			f.Restart()
		}
		f.wantSynced(t)
		f.wantEqual(t, 0)
		newest := f.cache.Generation().Store.Revision()
		f.wantEqual(t, oldest+r.Int64N(newest-oldest+1))
	}
	if f.cache.Generation() != first {
		t.Error("a generation ended although the store stayed the same")
	}
	f.wantHistory(t, oldest+1)
	if lists := f.cache.Status().Lists; lists != 1 {
		t.Errorf("%d lists, want one", lists)
	}
}

func TestCache_FetchesTheHistoryFromBeforeItsStart(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	const revisions = 2200
	f := &fixture{Server: kvstoretest.Start(t, kvstoretest.Options{})}
	f.direct = f.Client()
	for range revisions {
		if r.IntN(4) > 0 {
			f.Put(f.direct, fmt.Sprintf("cilium/state/%02d", r.IntN(50)), "x")
		} else {
			f.Commit(f.direct, clientv3.OpDelete(fmt.Sprintf("cilium/state/%02d", r.IntN(50))), clientv3.OpPut("elsewhere", ""))
		}
	}
	for _, tt := range []struct {
		name       string
		cfg        Config
		compact    int64
		from, till int64 // where the floor has to be
	}{
		{"all", Config{}, 0, 1, 1},
		{"one-slice", Config{FillSlices: 1}, 0, 1, 1},
		{"as-much-as-is-kept", Config{History: History{Revisions: 1500}}, 0, 700, 800},
		{"as-much-as-fits", Config{History: History{Bytes: 700 * overhead}}, 0, 1300, revisions - 10},
		{"none", Config{FillSlices: -1}, 0, revisions, revisions + 99},
		{"compacted", Config{}, 900, 900, 900},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.compact > 0 {
				if _, err := f.direct.Etcd().Compact(t.Context(), tt.compact); err != nil {
					t.Fatal(err)
				}
			}
			f.start(t, tt.cfg)
			defer f.stop()
			st := f.cache.Generation().Store.Stats()
			if st.Floor < tt.from || st.Floor > tt.till {
				t.Fatalf("floor %d of %d, want %d to %d", st.Floor, st.Revision, tt.from, tt.till)
			}
			for _, rev := range []int64{st.Floor, (st.Floor + st.Revision) / 2, st.Revision} {
				f.wantEqual(t, max(rev, 1))
			}
			f.wantHistory(t, st.Floor+1)
		})
	}
}

// TestCache_AnswersWithoutTheEtcd cuts the etcd off.
func TestCache_AnswersWithoutTheEtcd(t *testing.T) {
	f := newFixture(t, Config{Patience: 50 * time.Millisecond}, func(f *fixture) { f.Fill(f.direct, "cilium/state/", 120, "x") })
	f.wantSynced(t)
	f.Proxy.Freeze()
	if fresh, err := f.cache.Sync(t.Context()); fresh || err != nil {
		t.Fatalf("fresh %t, %v from an etcd that is silent", fresh, err)
	}
	kvstoretest.Eventually(t, func() string {
		if !f.cache.Stale() {
			return "not stale"
		}
		return ""
	})
	if st := f.cache.Generation().Store.Stats(); st.Keys != 120 || f.cache.Status().Answered == 0 {
		t.Errorf("%+v, %+v", st, f.cache.Status())
	}
	f.Put(f.direct, "cilium/state/new", "1")
	f.Proxy.Thaw()
	f.wantSynced(t)
	f.wantEqual(t, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.cache.Sync(ctx); err == nil {
		t.Error("a reader who is gone got an answer")
	}
}

// TestCache_GapIsAnotherGeneration compacts away what happened while the cache was cut off.
func TestCache_GapIsAnotherGeneration(t *testing.T) {
	f := newFixture(t, Config{}, func(f *fixture) { f.Fill(f.direct, "cilium/state/", 20, "x") })
	first := f.cache.Generation()
	f.Proxy.Part()
	f.Put(f.direct, "cilium/state/a", "1")
	f.Compact(f.direct)
	f.Proxy.Rejoin()
	<-first.Done()
	f.wantSynced(t)
	f.wantEqual(t, 0)
	next := f.cache.Generation()
	if next.ClusterID != first.ClusterID {
		t.Error("the same store has another cluster id")
	}
	if floor := next.Store.Stats().Floor; floor <= first.Store.Revision() {
		t.Errorf("the history reaches back to %d, over the gap", floor)
	}
	f.wantWatchFromList(t)
}

// wantWatchFromList begins to watch at the revision of the present generation's list.
func (f *fixture) wantWatchFromList(t *testing.T) {
	t.Helper()
	s := f.cache.Generation().Store
	kvstoretest.Eventually(t, func() string {
		_, err := s.Since(s.base, 1<<20, false)
		if errors.As(err, new(*FillingError)) {
			return err.Error()
		}
		if err != nil {
			t.Fatalf("a watch from the revision of the list: %v", err)
		}
		return ""
	})
	if _, err := s.Since(s.base-1, 1, false); !errors.As(err, new(*CompactedError)) {
		t.Errorf("a watch from before the list: %v", err)
	}
}

func putEpoch(t *testing.T, f *fixture, id byte) string {
	t.Helper()
	e := schema.Epoch{ID: fmt.Sprintf("%032x", id), Created: time.Now()}
	b, err := schema.EncodeEpoch(e)
	if err != nil {
		t.Fatal(err)
	}
	f.Put(f.direct, schema.EpochKey, string(b))
	return e.ID
}

func putOwner(t *testing.T, f *fixture, node, epoch string) {
	t.Helper()
	b, err := schema.Owners().Encode(node, schema.Owner{Epoch: epoch, Rows: 1, Complete: true})
	if err != nil {
		t.Fatal(err)
	}
	f.Put(f.direct, schema.OwnersPrefix+node, string(b))
}

// TestCache_EpochIsAnotherGeneration writes an epoch to a store that stays the same.
func TestCache_EpochIsAnotherGeneration(t *testing.T) {
	f := newFixture(t, Config{}, func(f *fixture) { f.Fill(f.direct, "cilium/state/", 20, "x") })
	first := f.cache.Generation()
	putEpoch(t, f, 7)
	<-first.Done()
	f.wantSynced(t)
	next := f.cache.Generation()
	if next.ClusterID == first.ClusterID || next.Store != first.Store {
		t.Errorf("same id %t, same store %t; want another id of the same store",
			next.ClusterID == first.ClusterID, next.Store == first.Store)
	}
	// A process that starts now knows it by the same id.
	before := next.ClusterID
	f.stop()
	f.start(t, Config{})
	if got := f.cache.Generation().ClusterID; got != before {
		t.Errorf("after a restart the cluster id is %d, was %d", got, before)
	}
}

// TestCache_SetBackOverDeletion sets the store back to before a deletion that was the last change, and lets
// it overtake what it was: it is not the store that it was, though it has all that was put.
func TestCache_SetBackOverDeletion(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Config{HoldGrace: 50 * time.Millisecond, HoldLinger: 100 * time.Millisecond}, func(f *fixture) {
		putEpoch(t, f, 1)
		f.Put(f.direct, "cilium/state/a", "x")
		f.Put(f.direct, "cilium/state/b", "x")
	})
	old := filepath.Join(t.TempDir(), "old")
	f.Save(old)
	f.Delete(f.direct, "cilium/state/a")
	f.wantSynced(t)
	if diff := cmp.Diff([]string{"cilium/state/b"}, f.served(t)); diff != "" {
		t.Fatalf("served (-want +got):\n%s", diff)
	}
	f.replace(t, func() { f.RollBack(old) })
	putEpoch(t, f, 2)
	f.wantServed(t, "cilium/state/a", "cilium/state/b")
	f.wantSynced(t)
	f.wantEqual(t, 0)
}

// TestCache_AnEmptyViewIsNotHeld writes an epoch to a store that had nothing yet.
func TestCache_AnEmptyViewIsNotHeld(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Config{HoldLonger: time.Hour}, nil)
	first := f.cache.Generation()
	f.Proxy.Part()
	putEpoch(t, f, 7)
	f.Put(f.direct, "cilium/state/a", "x")
	f.Proxy.Rejoin()
	<-first.Done()
	f.wantSynced(t)
	f.wantEqual(t, 0)
	if f.cache.Generation().ClusterID == first.ClusterID {
		t.Error("the store has an epoch and the same cluster id as without")
	}
	f.wantWatchFromList(t)
}

func TestNew_Refuses(t *testing.T) {
	if _, err := New(nil, Config{}, kvstoretest.Log(t)); err == nil {
		t.Error("a cache of nobody's store")
	}
}
