// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// keeping are the settings of a cache that keeps views.
func keeping(t *testing.T) Config {
	return Config{
		File: filepath.Join(t.TempDir(), "state", "view"), HoldGrace: 50 * time.Millisecond, HoldLinger: 100 * time.Millisecond,
	}
}

// wantFile waits until a view is kept, or none.
func wantFile(t *testing.T, file string, want bool) {
	t.Helper()
	kvstoretest.Eventually(t, func() string {
		st, err := os.Stat(file)
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err.Error()
		case want != (err == nil):
			return "kept: " + cmp.Diff(want, err == nil)
		case err == nil && st.Mode().Perm() != 0o600:
			return "mode " + st.Mode().String()
		}
		return ""
	})
}

// TestCache_RestartsInHold starts the cache of a lost store anew wherever a hold can be: it serves on what
// it served, and what is held goes as its owners say.
func TestCache_RestartsInHold(t *testing.T) {
	t.Parallel()
	cfg := keeping(t)
	f := newLost(t, cfg, 2)
	first, before := f.cache.Generation(), f.served(t)
	wantFile(t, cfg.File, true)

	// Nobody said yet what became of the store.
	f.stop()
	f.run(t, cfg)
	gen := f.cache.Generation()
	if gen.ClusterID != first.ClusterID || gen.Store.Revision() != first.Store.Revision() {
		t.Errorf("cluster id %d at %d, before %d at %d", gen.ClusterID, gen.Store.Revision(), first.ClusterID, first.Store.Revision())
	}
	if diff := cmp.Diff(before, f.served(t)); diff != "" || !f.cache.Stale() {
		t.Fatalf("stale %t, another view is served (-want +got):\n%s", f.cache.Stale(), diff)
	}
	epoch := putEpoch(t, f, 2)
	<-gen.Done()
	f.wantSynced(t)
	f.wantServed(t, rowsOf(2)...)
	next := f.cache.Generation()

	// Another store is served, and one of two nodes has spoken.
	putNode(t, f, 1, 1)
	putOwner(t, f, "n1", epoch)
	spoken := slices.DeleteFunc(rowsOf(2), func(key string) bool { return key == ipRow(1, 2) })
	f.wantServed(t, spoken...)
	f.stop()
	f.run(t, cfg)
	f.wantConnected(t)
	f.wantServed(t, spoken...)
	if h, id := f.cache.Status().Held, f.cache.Generation().ClusterID; id != next.ClusterID || h.Rows != 5 || h.Silent != 1 {
		t.Errorf("cluster id %d, before %d; held %+v", id, next.ClusterID, h)
	}
	if diff := cmp.Diff([]string{ipRow(1, 2)}, deletions(t, f.cache.Generation())); diff != "" {
		t.Errorf("deletions since what was kept (-want +got):\n%s", diff)
	}

	// What happened since is forgotten: everybody is asked anew.
	f.stop()
	f.Compact(f.direct)
	f.run(t, cfg)
	kvstoretest.Eventually(t, func() string {
		if st := f.cache.Status(); st.Lists == 0 || st.Held.Silent != 2 {
			return "not listed anew"
		}
		return ""
	})
	f.wantServed(t, rowsOf(2)...)
	for _, owner := range []string{"n1", "n2", schema.OperatorOwner} {
		putOwner(t, f, owner, epoch)
	}
	f.wantServed(t, nodeRow(1), ipRow(1, 1))
	wantFile(t, cfg.File, false)
	f.wantSynced(t)
	f.wantEqual(t, 0)
}

// TestCache_StoreIsBackAfterRestart loses a store, and finds it again after a restart.
func TestCache_StoreIsBackAfterRestart(t *testing.T) {
	t.Parallel()
	cfg := keeping(t)
	f := newFixture(t, cfg, func(f *fixture) {
		putEpoch(t, f, 1)
		putNode(t, f, 1, 2)
	})
	wantFile(t, cfg.File, false)
	saved := t.TempDir()
	f.Save(saved)
	f.wantSynced(t)
	first := f.cache.Generation()
	f.lose(t)
	f.stop()
	f.RollBack(saved)
	f.run(t, cfg)
	f.wantConnected(t)
	f.wantSynced(t)
	f.wantEqual(t, 0)
	if id := f.cache.Generation().ClusterID; id != first.ClusterID {
		t.Errorf("cluster id %d, before %d", id, first.ClusterID)
	}
	f.wantWatchFromList(t)
	wantFile(t, cfg.File, false)
}

// TestCache_RefusesOddViews begins with what was kept by somebody else, or long ago, or is torn: as without.
func TestCache_RefusesOddViews(t *testing.T) {
	good := viewHeader{Cluster: "east", Prefix: "cilium/", At: time.Now(), Upstream: 1, Revision: 9, Keys: 1, Holding: time.Now()}
	for name, tt := range map[string]struct {
		edit func(*viewHeader)
		tear bool
	}{
		"another-cluster": {func(h *viewHeader) { h.Cluster = "west" }, false},
		"another-range":   {func(h *viewHeader) { h.Prefix = "weft/" }, false},
		"old":             {func(h *viewHeader) { h.At = h.At.Add(-61 * time.Minute) }, false},
		"torn":            {func(*viewHeader) {}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, h := keeping(t), good
			tt.edit(&h)
			row := &mvccpb.KeyValue{Key: []byte("cilium/state/old"), CreateRevision: 3, ModRevision: 3, Version: 1}
			if err := writeView(cfg.File, h, func(put func(*mvccpb.KeyValue)) { put(row) }); err != nil {
				t.Fatal(err)
			}
			if tt.tear {
				if err := os.Truncate(cfg.File, 200); err != nil {
					t.Fatal(err)
				}
			}
			f := newFixture(t, cfg, func(f *fixture) { f.Put(f.direct, "cilium/state/new", "x") })
			f.wantSynced(t)
			if diff := cmp.Diff([]string{"cilium/state/new"}, f.served(t)); diff != "" {
				t.Errorf("served (-want +got):\n%s", diff)
			}
			wantFile(t, cfg.File, false)
		})
	}
}

// viewOf is a view as it is kept, and its bytes.
func viewOf(t testing.TB) (viewHeader, []*mvccpb.KeyValue, []byte) {
	t.Helper()
	now := time.Now().UTC().Round(0)
	h := viewHeader{
		Cluster: "east", Prefix: "cilium/", At: now, Upstream: 1 << 63, Epoch: "e", Revision: 9, Keys: 2,
		Key: "cilium/b", Mod: 7, Hash: 1<<64 - 1, Holding: now, Waited: time.Minute,
		Held: &heldHeader{
			Epoch: "e", Base: 8, Owners: map[string][]string{"n1": {"cilium/a"}}, Nodes: []string{"n1"}, Since: now, Ready: now, Went: true,
		},
	}
	kvs := []*mvccpb.KeyValue{
		{Key: []byte("cilium/a"), Value: []byte("1"), CreateRevision: 1, ModRevision: 1, Version: 1},
		{Key: []byte("cilium/b"), CreateRevision: 3, ModRevision: 7, Version: 2, Lease: 5},
	}
	var b bytes.Buffer
	err := encodeView(&b, h, func(put func(*mvccpb.KeyValue)) {
		for _, kv := range kvs {
			put(kv)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return h, kvs, b.Bytes()
}

func TestView_RoundTrip(t *testing.T) {
	h, kvs, b := viewOf(t)
	gotH, gotKVs, err := decodeView(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(h, gotH, cmpopts.EquateEmpty()) + cmp.Diff(kvs, gotKVs, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	last := gotH.Held.held(gotKVs)
	if diff := cmp.Diff(h.Held, last.header(9), cmpopts.IgnoreFields(heldHeader{}, "Went")); diff != "" || len(last.rows) != 1 {
		t.Errorf("%d rows are held (-want +got):\n%s", len(last.rows), diff)
	}
	for i := range b {
		torn := slices.Clone(b)
		torn[i] ^= 1
		if _, _, err := decodeView(torn); err == nil {
			t.Errorf("byte %d may be another", i)
		}
		if _, _, err := decodeView(b[:i]); err == nil {
			t.Errorf("%d bytes are a view", i)
		}
	}
}

// FuzzDecodeView reads bytes of any kind behind a right checksum: what is read is what a store can serve.
func FuzzDecodeView(f *testing.F) {
	_, _, b := viewOf(f)
	f.Add(b[:len(b)-32])
	f.Add([]byte(viewMagic + "\x02{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		sum := sha256.Sum256(b)
		h, kvs, err := decodeView(append(b[:len(b):len(b)], sum[:]...))
		if err != nil {
			return
		}
		if s := NewStore(History{}, h.Revision, kvs); s.count("") != h.Keys {
			t.Errorf("%d keys of %d", s.count(""), h.Keys)
		}
		h.Held.held(kvs)
	})
}
