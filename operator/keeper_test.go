// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

const definition = schema.DefinitionsPrefix + "default/"

// testKeeper is a keeper whose turns the test takes; key is its candidacy.
func testKeeper(t *testing.T, c *kvstore.Client, dir, name string) *keeper {
	t.Helper()
	cfg := testConfig(name)
	cfg.StateDir = dir
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(cfg, c, m, kvstoretest.Log(t))
	k.load()
	return k
}

// leader is a keeper with a term, which knows the definitions that it puts into the store.
func leader(t *testing.T, s *kvstoretest.Server, c *kvstore.Client, dir string, definitions ...string) *keeper {
	t.Helper()
	k := testKeeper(t, c, dir, "one")
	elect(t, c, k)
	for _, name := range definitions {
		s.Put(c, definition+name, "x")
	}
	beat(t, s, c, "1")
	turns(t, k, 2)
	return k
}

// wipe gives the store another life, and a keeper a term in it.
func wipe(t *testing.T, s *kvstoretest.Server, c *kvstore.Client, k *keeper) {
	t.Helper()
	s.Wipe()
	s.Burn(c, 1)
	elect(t, c, k)
}

// elect gives a keeper a term.
func elect(t *testing.T, c *kvstore.Client, k *keeper) fence {
	t.Helper()
	key := schema.ElectionsPrefix + office + "/" + k.cfg.Name
	if _, err := c.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	rev, err := c.Put(t.Context(), key, []byte(k.cfg.Name), 0)
	if err != nil {
		t.Fatal(err)
	}
	f := fence{key, rev}
	k.lead(&f)
	return f
}

func turns(t *testing.T, k *keeper, n int) {
	t.Helper()
	for range n {
		if err := k.turn(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func there(t *testing.T, c *kvstore.Client, key string) bool {
	t.Helper()
	_, ok, err := c.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func beat(t *testing.T, s *kvstoretest.Server, c *kvstore.Client, text string) {
	s.Put(c, schema.HeartbeatKey, text)
}

func TestKeeper_PutsBackAfterWipe(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	dir := t.TempDir()
	put(t, c, schema.Definitions(), webKey, web("true"))
	s.Put(c, exports+"default/web", "exported")
	s.Put(c, schema.PeersPrefix+"west", "left")
	k := leader(t, s, c, dir, "gone")
	s.Delete(c, definition+"gone")
	turns(t, k, 1) // a deletion, followed
	first, _, err := c.Get(t.Context(), schema.EpochKey)
	if err != nil || len(first.Value) == 0 {
		t.Fatal("no epoch made on the first start", err)
	}

	s.Wipe()
	s.Put(c, "burn", "x")
	s.Burn(c, 50) // the new life overtakes the old one
	k = testKeeper(t, c, dir, "one")
	elect(t, c, k)
	turns(t, k, 2)
	for key, want := range map[string]bool{
		definition + "web": true, exports + "default/web": true, schema.PeersPrefix + "west": true, definition + "gone": false,
	} {
		if got := there(t, c, key); got != want {
			t.Errorf("%s there: %v, want %v", key, got, want)
		}
	}
	now, _, err := c.Get(t.Context(), schema.EpochKey)
	if err != nil || len(now.Value) == 0 || string(now.Value) == string(first.Value) {
		t.Errorf("epoch %q after %q, %v: want a new one", now.Value, first.Value, err)
	}
	if err := k.check(t.Context()); !errors.Is(err, errHold) {
		t.Errorf("check in hold: %v", err)
	}
	// A deletion on the new lineage is real, and all nodes confirming ends the hold.
	s.Delete(c, definition+"web")
	turns(t, k, 2)
	if there(t, c, definition+"web") {
		t.Error("a deletion that somebody meant was undone")
	}
	epoch, err := schema.DecodeEpoch(now.Value)
	if err != nil {
		t.Fatal(err)
	}
	s.Put(c, schema.NodesPrefix+"east/n1", "{}")
	put(t, c, schema.Owners(), "n1", schema.Owner{Epoch: epoch.ID, Rows: 1, Complete: true})
	turns(t, k, 1)
	if err := k.check(t.Context()); err != nil {
		t.Errorf("check after the owners are back: %v", err)
	}
}

func TestKeeper_ResurrectsNothingDeletedWhileDown(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	dir := t.TempDir()
	leader(t, s, c, dir, "web", "db")
	s.Delete(c, definition+"web")
	s.Delete(c, definition+"db")
	beat(t, s, c, "2")
	for _, compacted := range []bool{false, true} {
		if compacted {
			s.Compact(c)
		}
		again := testKeeper(t, c, dir, "one")
		if !compacted {
			again.cfg.StateDir = "" // leaves the old copy for the next life
		}
		elect(t, c, again)
		turns(t, again, 2)
		if there(t, c, definition+"web") || there(t, c, definition+"db") {
			t.Errorf("compacted %v: a deletion was undone", compacted)
		}
	}
}

func TestKeeper_DeletedByHand(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	for _, tc := range []struct {
		name, prefix string
		back         bool
	}{
		{"all-of-ours", "weft/", true},
		{"definitions", schema.DefinitionsPrefix, true},
		{"one-definition", definition + "web", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := testKeeper(t, c, "", "one")
			elect(t, c, k)
			s.Put(c, definition+"web", "x")
			s.Put(c, definition+"db", "y")
			beat(t, s, c, tc.name)
			turns(t, k, 2)
			if _, err := c.Etcd().Delete(t.Context(), tc.prefix, clientv3.WithPrefix()); err != nil {
				t.Fatal(err)
			}
			if tc.prefix == "weft/" {
				elect(t, c, k) // the election went too
			}
			turns(t, k, 3)
			if got := there(t, c, definition+"web"); got != tc.back {
				t.Errorf("web there: %v, want %v", got, tc.back)
			}
			if !there(t, c, definition+"db") {
				t.Error("db is gone")
			}
		})
	}
}

func TestKeeper_OneEpochOfMany(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	var all []*keeper
	for i := range 4 {
		k := testKeeper(t, c, t.TempDir(), fmt.Sprint("op-", i))
		elect(t, c, k) // worse than any election: all believe that they lead
		all = append(all, k)
	}
	s.Put(c, definition+"web", "x")
	beat(t, s, c, "1")
	for _, k := range all {
		turns(t, k, 2)
	}
	s.Wipe()
	s.Put(c, "burn", "x")
	for _, k := range all {
		elect(t, c, k)
	}
	g, ctx := errgroup.WithContext(t.Context())
	for _, k := range all {
		g.Go(func() error {
			for range 4 {
				if err := k.turn(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	written := 0.
	for _, k := range all {
		written += testutil.ToFloat64(k.metrics.epochs)
	}
	kv, _, err := c.Get(t.Context(), schema.EpochKey)
	if err != nil || kv.CreateRevision != kv.ModRevision {
		t.Errorf("epoch %+v, %v: want one put", kv, err)
	}
	if written != 2 { // at the first start, and after the wipe
		t.Errorf("%v epochs written, want 2", written)
	}
	if !there(t, c, definition+"web") {
		t.Error("the definition was not put back")
	}
}

func TestKeeper_OldCopyAfterAnothersRestore(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	k, stale := leader(t, s, c, "", "web"), testKeeper(t, c, "", "stale")
	turns(t, stale, 1)
	wipe(t, s, c, k)
	turns(t, k, 3)
	s.Delete(c, definition+"web") // by a person, in the new life
	elect(t, c, stale)            // leads with a copy of the old life
	turns(t, stale, 3)
	if there(t, c, definition+"web") {
		t.Error("an old copy undid a deletion")
	}
}

func TestKeeper_EndedTermWritesNothing(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	k := leader(t, s, c, "", "web")
	s.Wipe()
	s.Put(c, "burn", "x") // nobody is elected in the new life
	turns(t, k, 3)
	if there(t, c, schema.EpochKey) || there(t, c, definition+"web") {
		t.Error("a term that ended wrote")
	}
}

func TestKeeper_AddressTakenMeanwhile(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	d := web("true")
	put(t, c, schema.Definitions(), webKey, d)
	put(t, c, schema.VIPs(), d.VIPs[0], schema.VIP{Namespace: "default", Name: "web"})
	k := leader(t, s, c, "")
	s.Wipe()
	s.Put(c, "burn", "x")
	other := schema.DefinitionKey{Namespace: "default", Name: "other"}
	put(t, c, schema.Definitions(), other, d)
	put(t, c, schema.VIPs(), d.VIPs[0], schema.VIP{Namespace: "default", Name: "other"})
	elect(t, c, k)
	turns(t, k, 3)
	if there(t, c, definition+"web") {
		t.Error("two services have one address")
	}
	if n := testutil.ToFloat64(k.metrics.conflicts); n != 1 {
		t.Errorf("%v conflicts counted, want 1", n)
	}
}

func TestOperator_ServicesSurviveWipe(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	put(t, c, schema.Definitions(), webKey, web("true"))
	put(t, c, schema.Endpoints(scope), podKey, pod("10.1.1.5"))
	cfg := testConfig("one")
	cfg.StateDir = t.TempDir()
	o, _ := start(t, cfg, kvstoretest.NewClient(t, s.ProxyConfig()))
	want(t, c, exports+"default/web", "10.1.1.5")
	kvstoretest.Eventually(t, func() string {
		if n := testutil.ToFloat64(o.metrics.copied); n < 3 {
			return fmt.Sprintf("%v rows copied", n)
		}
		return ""
	})
	s.Wipe()
	s.Put(c, "burn", "x")
	// The endpoints are not back, and yet the export keeps its backend.
	want(t, c, definition+"web", "web")
	want(t, c, exports+"default/web", "10.1.1.5")
	want(t, c, schema.EpochKey, "epoch")
	kvstoretest.Eventually(t, func() string { // it counts after the store has it
		if testutil.ToFloat64(o.metrics.restored) == 0 {
			return "nothing was put back by the keeper"
		}
		return ""
	})
}

func TestMemory_RoundTripAndDamage(t *testing.T) {
	dir := t.TempDir()
	m := memory{Cluster: "east", ClusterID: 1 << 63, Epoch: "e", Revision: 7, Rows: map[string][]byte{"a": []byte("1")}, Held: map[string]bool{"a": true}}
	if err := saveMemory(dir, m); err != nil {
		t.Fatal(err)
	}
	got, known, err := loadMemory(dir)
	if err != nil || !known {
		t.Fatal(known, err)
	}
	if d := cmp.Diff(m, got); d != "" {
		t.Error(d)
	}
	file := filepath.Join(dir, memoryFile)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, known, err := loadMemory(dir); err == nil || known {
		t.Errorf("damaged: known %v, %v", known, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

func FuzzMemory(f *testing.F) {
	b, err := encodeMemory(memory{Cluster: "east", Rows: map[string][]byte{"a": []byte("1")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMemory(b)
		if err != nil {
			return
		}
		again, err := encodeMemory(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeMemory(again); err != nil {
			t.Fatal(err)
		}
	})
}

func TestReaper_RemovesWhatIsGone(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	k := testKeeper(t, c, "", "one")
	f := elect(t, c, k)
	r := &reaper{
		cfg: k.cfg, client: c, log: kvstoretest.Log(t), fence: f,
		check: func(context.Context) error { return nil }, done: k.metrics.gone,
	}
	gone := schema.EndpointKey{Cluster: "east", Node: "gone", ID: 1}
	put(t, c, schema.Endpoints(scope), gone, pod("10.1.9.5"))
	put(t, c, schema.Owners(), "back", schema.Owner{Epoch: strings.Repeat("0", 32)})
	put(t, c, schema.Owners(), "fresh", schema.Owner{Epoch: strings.Repeat("0", 32)})
	s.Put(c, schema.IdentityLocksPrefix+"k8s:app=web;/1", "")
	s.Put(c, schema.IdentityReferencesPrefix("k8s:app=web;")+"192.0.2.9", "65600")
	lease, err := c.Etcd().Grant(t.Context(), 600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(t.Context(), schema.EndpointsPrefix+"leased/1", []byte("{}"), lease.ID); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	turn := func(after time.Duration) {
		t.Helper()
		now = now.Add(after)
		if err := r.turn(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	turn(0)
	turn(r.cfg.GoneAfter / 2)
	if !there(t, c, schema.EndpointsPrefix+"gone/1") {
		t.Fatal("removed before its time")
	}
	put(t, c, schema.Owners(), "fresh", schema.Owner{Epoch: strings.Repeat("0", 32), Rows: 1})
	put(t, c, schema.Nodes(scope), schema.NodeKey{Cluster: "east", Name: "back"}, schema.Node{Name: "back", Cluster: "east", ClusterID: 1})
	r.check = func(context.Context) error { return errHold }
	now = now.Add(r.cfg.GoneAfter / 2)
	if err := r.turn(t.Context(), now); !errors.Is(err, errHold) || !there(t, c, schema.EndpointsPrefix+"gone/1") {
		t.Fatalf("worked in hold: %v", err)
	}
	r.check = func(context.Context) error { return nil }
	turn(0)
	for key, want := range map[string]bool{
		schema.EndpointsPrefix + "gone/1": false, schema.OwnersPrefix + "back": true, schema.OwnersPrefix + "fresh": true,
		schema.IdentityLocksPrefix + "k8s:app=web;/1": false, schema.EndpointsPrefix + "leased/1": true,
		schema.IdentityReferencesPrefix("k8s:app=web;") + "192.0.2.9": false,
	} {
		if got := there(t, c, key); got != want {
			t.Errorf("%s there: %v, want %v", key, got, want)
		}
	}
}

func TestDefragmenter_OneMember(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	k := testKeeper(t, c, "", "one")
	f := elect(t, c, k)
	d := &defragmenter{client: c, log: kvstoretest.Log(t), fence: f, last: k.metrics.defragged, smallest: 1, free: 0.5}
	s.Fill(c, "fill/", 2000, strings.Repeat("x", 2000))
	if _, err := c.Etcd().Delete(t.Context(), "fill/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	s.Compact(c)
	size := func() int64 {
		m, err := d.healthy(t.Context())
		if err != nil || len(m) != 1 || !m[0].leader {
			t.Fatal(m, err)
		}
		return m[0].size
	}
	before := size()
	k.lead(nil)
	if _, err := c.Delete(t.Context(), f.key); err != nil {
		t.Fatal(err)
	}
	if err := d.round(t.Context()); !errors.Is(err, errNotLeading) {
		t.Errorf("after its term: %v", err)
	}
	d.fence = elect(t, c, k)
	if err := d.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := size(); after >= before/2 {
		t.Errorf("%d bytes after %d", after, before)
	}
}
