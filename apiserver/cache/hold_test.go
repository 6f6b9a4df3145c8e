// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

const (
	identityRow = "cilium/state/identities/v1/id/65541"
	serviceRow  = "cilium/state/services/v1/east/default/web"
)

func nodeRow(n int) string { return fmt.Sprintf("cilium/state/nodes/v1/east/n%d", n) }

func ipRow(n, i int) string { return fmt.Sprintf("cilium/state/ip/v1/default/10.1.%d.%d", n, i) }

// putNode writes a node and so many addresses of its endpoints.
func putNode(t *testing.T, f *fixture, n, addresses int) {
	t.Helper()
	f.Put(f.direct, nodeRow(n), fmt.Sprintf(`{"Name":"n%d","IPAddresses":[{"Type":"InternalIP","IP":"172.16.1.%d"}]}`, n, n))
	for i := range addresses {
		f.Put(f.direct, ipRow(n, i+1), fmt.Sprintf(`{"IP":"10.1.%d.%d","HostIP":"172.16.1.%d","ID":65541}`, n, i+1, n))
	}
}

// newLost is a cache of the store of a cluster of some nodes, with two addresses each, an identity, a
// service and a lock. The store is wiped, and has overtaken what it was, and the cache knows it.
func newLost(t *testing.T, cfg Config, nodes int) *fixture {
	t.Helper()
	if cfg.HoldGrace == 0 {
		cfg.HoldGrace = 50 * time.Millisecond
	}
	if cfg.HoldLinger == 0 {
		cfg.HoldLinger = 100 * time.Millisecond
	}
	f := newFixture(t, cfg, func(f *fixture) {
		epoch := putEpoch(t, f, 1)
		for n := range nodes {
			putNode(t, f, n+1, 2)
			putOwner(t, f, fmt.Sprintf("n%d", n+1), epoch)
		}
		f.Put(f.direct, identityRow, "k8s:app=web;")
		f.Put(f.direct, serviceRow, "{}")
		f.Put(f.direct, "cilium/state/identities/v1/locks/k8s:app=web;/1", "")
	})
	f.lose(t)
	return f
}

// lose wipes the store.
func (f *fixture) lose(t *testing.T) {
	t.Helper()
	f.replace(t, func() { f.Wipe() })
}

// replace gives the store other data, whose revision overtakes what was known, and waits until the cache
// knows it.
func (f *fixture) replace(t *testing.T, data func()) {
	t.Helper()
	f.Proxy.Part()
	data()
	f.Burn(f.direct, 100)
	f.Proxy.Rejoin()
	kvstoretest.Eventually(t, func() string {
		if f.cache.Status().Holding.IsZero() {
			return "not held"
		}
		return ""
	})
}

// served are the keys of the present generation.
func (f *fixture) served(t *testing.T) (keys []string) {
	t.Helper()
	got, err := f.cache.Generation().Store.Snapshot().Range(&pb.RangeRequest{
		Key: []byte("cilium/"), RangeEnd: []byte("cilium0"), KeysOnly: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range got.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

// wantServed waits until exactly these keys are served, while something happens in the store.
func (f *fixture) wantServed(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	kvstoretest.Eventually(t, func() string {
		f.Put(f.direct, "elsewhere", "x")
		return cmp.Diff(want, f.served(t), cmpopts.EquateEmpty())
	})
}

// deletions are the keys that were deleted since a generation began, in the order of their revisions.
func deletions(t *testing.T, gen *Generation) (keys []string) {
	t.Helper()
	b, err := gen.Store.Since(gen.Store.base+1, 1<<20, false)
	if err != nil {
		t.Fatal(err)
	}
	last := gen.Store.base
	for _, c := range b.Changes {
		if c.Kv.ModRevision < last {
			t.Errorf("%s at %d after %d", c.Kv.Key, c.Kv.ModRevision, last)
		}
		last = c.Kv.ModRevision
		if c.Type == mvccpb.Event_DELETE {
			keys = append(keys, string(c.Kv.Key))
		}
	}
	return keys
}

func rowsOf(nodes int) (keys []string) {
	for n := range nodes {
		keys = append(keys, nodeRow(n+1), ipRow(n+1, 1), ipRow(n+1, 2))
	}
	return append(keys, identityRow, serviceRow)
}

// TestCache_HeldRowsGoAsTheirOwnersSay wipes the etcd. What it had is served on, what its owners write and
// delete anew at once, and what they do not write goes when each has spoken, as deletions.
func TestCache_HeldRowsGoAsTheirOwnersSay(t *testing.T) {
	t.Parallel()
	f := newLost(t, Config{}, 2)
	first := f.cache.Generation()
	if fresh, err := f.cache.Sync(t.Context()); fresh || err != nil || !f.cache.Stale() {
		t.Fatalf("fresh %t, %v of a store that nobody vouches for", fresh, err)
	}
	const lock = "cilium/state/identities/v1/locks/k8s:app=web;/1"
	if diff := cmp.Diff(append(rowsOf(2)[:8:8], lock), f.served(t), sortedKeys); diff != "" {
		t.Fatalf("the last view is not served (-want +got):\n%s", diff)
	}

	epoch := putEpoch(t, f, 2)
	<-first.Done()
	f.wantSynced(t)
	next := f.cache.Generation()
	if next.ClusterID == first.ClusterID || f.cache.Stale() {
		t.Errorf("same id %t, stale %t", next.ClusterID == first.ClusterID, f.cache.Stale())
	}
	f.wantServed(t, rowsOf(2)...)
	if h := f.cache.Status().Held; h.Rows != 8 || h.Silent != 2 || h.Since.IsZero() {
		t.Errorf("held %+v", h)
	}

	// The first node is back with one address less than it had.
	putNode(t, f, 1, 1)
	putOwner(t, f, "n1", fmt.Sprintf("%032x", 1)) // an old word
	f.wantSynced(t)
	f.wantServed(t, rowsOf(2)...)
	putOwner(t, f, "n1", epoch)
	without := func(gone ...string) []string {
		return slices.DeleteFunc(rowsOf(2), func(key string) bool { return slices.Contains(gone, key) })
	}
	f.wantServed(t, without(ipRow(1, 2))...)
	// What it deletes now is gone with that revision.
	f.Commit(f.direct, clientv3.OpDelete(ipRow(1, 1)))
	f.wantSynced(t)
	if diff := cmp.Diff(without(ipRow(1, 1), ipRow(1, 2)), f.served(t), sortedKeys); diff != "" {
		t.Fatalf("after a read of the store (-want +got):\n%s", diff)
	}

	// The second is back with less as well, and with it everybody has spoken.
	putNode(t, f, 2, 0)
	putOwner(t, f, "n2", epoch)
	f.wantServed(t, nodeRow(1), nodeRow(2), serviceRow)
	if f.cache.Generation() != next {
		t.Fatal("another generation while something is held")
	}
	putOwner(t, f, schema.OperatorOwner, epoch)
	f.wantServed(t, nodeRow(1), nodeRow(2))
	want := []string{ipRow(1, 2), ipRow(1, 1), ipRow(2, 1), ipRow(2, 2), identityRow, serviceRow}
	if diff := cmp.Diff(want, deletions(t, next)); diff != "" {
		t.Errorf("deletions (-want +got):\n%s", diff)
	}

	<-next.Done()
	f.wantSynced(t)
	f.wantEqual(t, 0)
	last := f.cache.Generation()
	if last.ClusterID == next.ClusterID || last.ClusterID == first.ClusterID {
		t.Error("the store without what was held has the id of one with it")
	}
	f.wantWatchFromList(t)
	f.stop()
	f.start(t, Config{})
	if got := f.cache.Generation().ClusterID; got != last.ClusterID {
		t.Errorf("another replica has the cluster id %d, this one %d", got, last.ClusterID)
	}
}

var sortedKeys = cmp.Transformer("sorted", func(keys []string) map[string]bool {
	set := map[string]bool{}
	for _, key := range keys {
		set[key] = true
	}
	return set
})

// TestCache_HoldEnds ends the hold of a wiped store in each other way.
func TestCache_HoldEnds(t *testing.T) {
	adopt := func(t *testing.T, f *fixture, epoch string) {
		b, err := schema.EncodeDecision(schema.Decision{Decision: schema.DecisionAdopt, Revision: 1, Epoch: epoch, At: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		f.Put(f.direct, schema.DecisionKey, string(b))
	}
	for _, tt := range []struct {
		name string
		cfg  Config
		end  func(t *testing.T, f *fixture)
	}{
		{"adopted", Config{}, func(t *testing.T, f *fixture) {
			first := f.cache.Generation()
			epoch := putEpoch(t, f, 2)
			<-first.Done()
			adopt(t, f, epoch)
		}},
		{"adopted-before-it-is-served", Config{}, func(t *testing.T, f *fixture) { adopt(t, f, putEpoch(t, f, 2)) }},
		{"limit", Config{HoldLimit: 300 * time.Millisecond}, func(t *testing.T, f *fixture) {
			first := f.cache.Generation()
			epoch := putEpoch(t, f, 2)
			<-first.Done()
			for n := range 4 { // one in five may be gone for good
				putOwner(t, f, fmt.Sprintf("n%d", n+1), epoch)
			}
		}},
		{"left-for-good", Config{}, func(t *testing.T, f *fixture) {
			epoch := putEpoch(t, f, 2)
			for _, owner := range []string{"n1", "n2", "n3", "n4", "n5", schema.OperatorOwner} {
				b, err := schema.Owners().Encode(owner, schema.Owner{Epoch: epoch, Complete: true, Left: true})
				if err != nil {
					t.Fatal(err)
				}
				f.Put(f.direct, schema.OwnersPrefix+owner, string(b))
			}
		}},
		{"replicas-in-turn", Config{HoldLonger: 300 * time.Millisecond}, func(t *testing.T, f *fixture) {
			first := f.cache.Generation()
			before := time.Now()
			adopt(t, f, putEpoch(t, f, 2))
			<-first.Done()
			if d := time.Since(before); d < 300*time.Millisecond {
				t.Errorf("the last view was served for %v only", d)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newLost(t, tt.cfg, 5)
			tt.end(t, f)
			f.Put(f.direct, "cilium/state/new", "x")
			f.wantServed(t, "cilium/state/new")
			kvstoretest.Eventually(t, func() string {
				if gen := f.cache.Generation(); gen.held != nil {
					return "the store is not served as it is"
				}
				return ""
			})
			f.wantSynced(t)
			f.wantEqual(t, 0)
			if h := f.cache.Status().Held; h != (Held{}) {
				t.Errorf("held %+v", h)
			}
		})
	}
}

// TestCache_HoldsOn breaks what can be broken while rows are held.
func TestCache_HoldsOn(t *testing.T) {
	t.Parallel()
	f := newLost(t, Config{}, 2)
	first := f.cache.Generation()
	epoch := putEpoch(t, f, 2)
	<-first.Done()
	f.wantSynced(t)

	f.Proxy.Cut()
	f.wantSynced(t)
	f.wantServed(t, rowsOf(2)...)

	// What happened meanwhile is forgotten: the store is listed anew, and has a row of the held ones.
	gen := f.cache.Generation()
	f.Proxy.Part()
	f.Put(f.direct, ipRow(2, 1), "{}")
	f.Compact(f.direct)
	f.Proxy.Rejoin()
	<-gen.Done()
	f.wantSynced(t)
	f.wantServed(t, rowsOf(2)...)
	if h := f.cache.Status().Held; h.Rows != 7 {
		t.Errorf("held %+v", h)
	}

	// Lost once more: what was held, and what was new, is held.
	gen = f.cache.Generation()
	f.lose(t)
	if f.cache.Generation() != gen {
		t.Error("another view is served than the last")
	}
	epoch = putEpoch(t, f, 3)
	<-gen.Done()
	f.wantSynced(t)
	f.wantServed(t, rowsOf(2)...)
	for _, owner := range []string{"n1", "n2", schema.OperatorOwner} {
		putOwner(t, f, owner, epoch)
	}
	f.wantServed(t)
}

func TestHeld_OwnerOf(t *testing.T) {
	nodes := map[netip.Addr]string{netip.MustParseAddr("172.16.1.1"): "n1", netip.MustParseAddr("fd00::2"): "n2"}
	for key, tt := range map[string]struct{ value, want string }{
		nodeRow(1):                      {"{}", "n1"},
		"cilium/state/nodes/v1/west/n1": {"{}", kvstore.OwnerEverybody},
		ipRow(1, 1):                     {`{"HostIP":"172.16.1.1"}`, "n1"},
		ipRow(1, 2):                     {`{"HostIP":"172.16.1.9"}`, kvstore.OwnerEverybody},
		ipRow(1, 3):                     {`{"HostIP":`, kvstore.OwnerEverybody},
		ipRow(1, 4):                     {`{"HostIP":17}`, kvstore.OwnerEverybody},
		schema.IdentityValuesPrefix + "a=b;/fd00::2": {"65541", "n2"},
		schema.IdentityValuesPrefix + "a=b;/nowhere": {"65541", kvstore.OwnerEverybody},
		identityRow:                        {"a=b;", kvstore.OwnerEverybody},
		serviceRow:                         {"{}", kvstore.OwnerOperator},
		"cilium/cluster-config/east":       {"{}", kvstore.OwnerOperator},
		"cilium/cluster-config/west":       {"{}", kvstore.OwnerEverybody},
		"cilium/cache/ip/v1/west/10.2.0.1": {`{"HostIP":"172.16.1.1"}`, kvstore.OwnerEverybody},
	} {
		if got := ownerOf("east", &mvccpb.KeyValue{Key: []byte(key), Value: []byte(tt.value)}, nodes); got != tt.want {
			t.Errorf("%s is of %q, want %q", key, got, tt.want)
		}
	}
}

// FuzzOwnerOf reads keys and values of any kind: each is somebody's, of whom one can hear.
func FuzzOwnerOf(f *testing.F) {
	f.Add(nodeRow(1), []byte(`{"IPAddresses":[{"IP":"172.16.1.1"}]}`))
	f.Add("cilium/state/nodes/v1/east/", []byte("{}"))
	f.Add(ipRow(1, 1), []byte(`{"HostIP":"172.16.1.1"}`))
	f.Add(schema.IdentityValuesPrefix, []byte(nil))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		nodes := map[netip.Addr]string{}
		for _, a := range addressesOf(value) {
			if !a.IsValid() {
				t.Errorf("an address that is none in %q", value)
			}
			nodes[a] = "n1"
		}
		if owner := ownerOf("east", &mvccpb.KeyValue{Key: []byte(key), Value: value}, nodes); owner == "" {
			t.Errorf("%q is nobody's", key)
		}
	})
}

// TestHeld_LimitWaitsForMost: the limit ends nothing while more than two nodes and a fifth of all are silent.
func TestHeld_LimitWaitsForMost(t *testing.T) {
	h := &held{owners: map[string]map[string]*mvccpb.KeyValue{}, rows: map[string]string{}, nodes: map[string]bool{}}
	for n := range 5 {
		h.nodes[fmt.Sprint(n)] = n < 2
	}
	h.hold("4", &mvccpb.KeyValue{Key: []byte("a")})
	now := time.Now()
	h.wait(time.Hour, time.Minute, now)
	if _, keys := h.next(9, now); len(keys) > 0 {
		t.Fatalf("%v went", keys)
	}
	h.nodes["3"] = true
	h.ready = now.Add(time.Second)
	h.wait(time.Second, time.Minute, now)
	if _, keys := h.next(9, now); len(keys) > 0 {
		t.Fatalf("%v went before anybody could have seen it", keys)
	}
	if _, keys := h.next(9, h.ready); !slices.Equal(keys, []string{"a"}) || len(h.rows) > 0 {
		t.Fatalf("%v went, %v is left", keys, h.rows)
	}
}
