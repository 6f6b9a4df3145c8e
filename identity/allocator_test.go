// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

var c3 = schema.Scope{Cluster: "c3", ClusterID: 3, MaxClusters: 255}

// node is what one agent has: an allocator with its lease and its mirror of the numbers.
type node struct {
	*Allocator
	client  *kvstore.Client
	session *kvstore.Session
	known   *state.Table[schema.IdentityKey, string]
	stop    func()
}

// start runs a node until the test ends or stop is called.
func start(t testing.TB, s *kvstoretest.Server, address string) *node {
	t.Helper()
	return startAs(t, s.Client(), address)
}

func startAs(t testing.TB, c *kvstore.Client, address string) *node {
	t.Helper()
	return startWith(t, c, Config{Node: netip.MustParseAddr(address)})
}

func startWith(t testing.TB, c *kvstore.Client, cfg Config) *node {
	t.Helper()
	return startBehind(t, c, cfg, newGate())
}

// startBehind is startWith for a node whose mirror falls behind while the gate is shut.
func startBehind(t testing.TB, c *kvstore.Client, cfg Config, mirror *gate) *node {
	t.Helper()
	cfg.Cluster, cfg.ClusterID = "c3", 3
	log := kvstoretest.Log(t)
	n := &node{client: c, known: state.NewTable[schema.IdentityKey]("identities", state.Equal[string])}
	n.session = kvstore.NewSession(n.client, kvstore.SessionConfig{TTL: time.Minute, Refresh: time.Second}, log)
	scope := schema.Scope{Cluster: cfg.Cluster, ClusterID: cfg.ClusterID, MaxClusters: cfg.MaxClusters}
	seen := state.NewTable[schema.IdentityKey]("seen", state.Equal[string])
	watch := kvstore.NewWatch(n.client, schema.Identities(scope), seen, kvstore.WatchConfig{Source: "etcd"}, log)
	var err error
	if n.Allocator, err = NewAllocator(cfg, n.client, n.session, n.known, log); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	for _, run := range []func(context.Context) error{
		n.session.Run, watch.Run, n.Run, func(ctx context.Context) error { return feed(ctx, mirror, seen, n.known) },
	} {
		g.Go(func() error { return run(ctx) })
	}
	stopped := false
	n.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	t.Cleanup(n.stop)
	return n
}

func timeout(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func set(app string) Labels {
	return NewLabels(Label{SourceKubernetes, "app", app}, Label{SourceKubernetes, ClusterKey, "c3"},
		Label{SourceKubernetes, NamespaceKey, "default"})
}

func (n *node) must(t testing.TB, labels Labels) ID {
	t.Helper()
	id, err := n.Allocate(timeout(t), labels)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// eventually waits until the condition holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	ctx := timeout(t)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within the time of the test", what)
		}
	}
}

func (n *node) value(t testing.TB, key string) (string, clientv3.LeaseID) {
	t.Helper()
	kv, _, err := n.client.Get(timeout(t), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(kv.Value), kv.Lease
}

func TestAllocator_WritesTheOpenSchema(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	a, b := start(t, s, "172.16.0.1"), start(t, s, "fc00::2")
	id := a.must(t, set("web"))
	if first, last := Range(3, 255); id < first || id > last {
		t.Errorf("number %d is not in the range", uint32(id))
	}
	labels := "k8s:app=web;k8s:io.cilium.k8s.policy.cluster=c3;k8s:io.kubernetes.pod.namespace=default;"
	number := fmt.Sprint(uint32(id))
	if v, lease := a.value(t, "cilium/state/identities/v1/id/"+number); v != labels || lease != 0 {
		t.Errorf("master key: got %q under lease %x", v, lease)
	}
	lease, _, err := a.session.Lease(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	ref := "cilium/state/identities/v1/value/" + labels + "/172.16.0.1"
	if v, l := a.value(t, ref); v != number || l != lease {
		t.Errorf("reference: got %q under lease %x, want %s under %x", v, l, number, lease)
	}
	if got := b.must(t, set("web")); got != id {
		t.Errorf("another node: got %d, want %d", uint32(got), uint32(id))
	}
	if v, _ := a.value(t, "cilium/state/identities/v1/value/"+labels+"/fc00::2"); v != number {
		t.Errorf("reference of the other node: got %q", v)
	}

	// A second user needs no store, and the reference goes with the last one only.
	if got := a.must(t, set("web")); got != id {
		t.Errorf("again: got %d", uint32(got))
	}
	if row, ok := a.Held().Get(labels); !ok || row.Value != (Holding{ID: id, Users: 2}) {
		t.Errorf("held: got %v, %v", row.Value, ok)
	}
	a.Release(set("web"))
	a.Release(set("web"))
	a.Release(set("web")) // once too often
	eventually(t, "reference removed", func() bool { v, _ := a.value(t, ref); return v == "" })
	if v, _ := a.value(t, "cilium/state/identities/v1/id/"+number); v != labels {
		t.Error("an agent must not remove a master key")
	}
	if a.Held().Len() != 0 {
		t.Error("something is still held")
	}

	// Nobody refers to it: the number is still that of the set.
	b.Release(set("web"))
	eventually(t, "second reference removed", func() bool {
		v, _ := a.value(t, "cilium/state/identities/v1/value/"+labels+"/fc00::2")
		return v == ""
	})
	eventually(t, "mirrored", func() bool { return a.Allocator.known.of(labels) == id })
	if got := a.must(t, set("web")); got != id {
		t.Errorf("after all had released it: got %d, want %d", uint32(got), uint32(id))
	}
}

func TestAllocator_FixedNumbers(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	a := start(t, s, "172.16.0.1")
	s.Kill() // they need no store
	dns := NewLabels(Label{SourceKubernetes, "k8s-app", "kube-dns"}, Label{SourceKubernetes, ClusterKey, "c3"},
		Label{SourceKubernetes, ServiceAccountKey, "coredns"}, Label{SourceKubernetes, NamespaceKey, "kube-system"})
	for want, labels := range map[ID]Labels{104: dns, Host: NewLabels(reserved("host")), KubeAPIServer: ReservedLabels(KubeAPIServer)} {
		if got := a.must(t, labels); got != want {
			t.Errorf("got %d, want %d", uint32(got), uint32(want))
		}
		a.Release(labels)
	}
	for _, bad := range []Labels{
		{}, NewLabels(Label{SourceKubernetes, "app", "web"}),
		NewLabels(Label{SourceKubernetes, ClusterKey, "c4"}),
		set("a;b"),
	} {
		if id, err := a.Allocate(timeout(t), bad); err == nil {
			t.Errorf("%s: got %d, want an error", bad, uint32(id))
		}
	}
}

// One set, one number: ten thousand sets from eight nodes at once, each set from several.
func TestAllocator_OneSetOneNumber(t *testing.T) {
	sets := 10_000
	if testing.Short() {
		sets = 500
	}
	s := kvstoretest.Start(t, kvstoretest.Options{})
	const nodes = 8
	all := make([]*node, nodes)
	for i := range all {
		all[i] = start(t, s, fmt.Sprintf("172.16.0.%d", i+1))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	got := make([][]ID, nodes)
	var g errgroup.Group
	for i, n := range all {
		got[i] = make([]ID, sets)
		// Each set is wanted by two nodes, which meet it in their own order.
		var mine []int
		for j := range sets {
			if j%nodes == i || (j/nodes)%nodes == i {
				mine = append(mine, j)
			}
		}
		rand.Shuffle(len(mine), func(a, b int) { mine[a], mine[b] = mine[b], mine[a] })
		const parallel = 8
		for k := range parallel {
			g.Go(func() error {
				for x := k; x < len(mine); x += parallel {
					id, err := n.Allocate(ctx, set(fmt.Sprintf("app-%d", mine[x])))
					if err != nil {
						return err
					}
					got[i][mine[x]] = id
				}
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	numbers := map[ID]int{}
	for j := range sets {
		var id ID
		for i := range all {
			switch other := got[i][j]; {
			case other == Unknown:
			case id == Unknown:
				id = other
			case id != other:
				t.Fatalf("set %d has the numbers %d and %d", j, uint32(id), uint32(other))
			}
		}
		if k, taken := numbers[id]; taken {
			t.Fatalf("sets %d and %d have the number %d", j, k, uint32(id))
		}
		numbers[id] = j
	}
	l, err := all[0].client.List(ctx, schema.IdentityIDsPrefix, kvstore.ListOptions{KeysOnly: true})
	if err != nil || len(l.KVs) != sets {
		t.Errorf("got %d master keys, %v, want %d", len(l.KVs), err, sets)
	}
	for _, n := range all {
		if st := n.Stats(); st.Locked != 0 || st.Renumbered != 0 || st.LastError != nil {
			t.Errorf("node: %+v", st)
		}
	}
}

func TestAllocator_GoesThroughTheLockOfAPeer(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	a := start(t, s, "172.16.0.1")
	ctx := timeout(t)
	labels := set("web").String()
	session, err := concurrency.NewSession(a.client.Etcd(), concurrency.WithTTL(25))
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	mutex := concurrency.NewMutex(session, "cilium/state/identities/v1/locks/"+labels)
	if err := mutex.Lock(ctx); err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	var id ID
	g.Go(func() (err error) { id, err = a.Allocate(ctx, set("web")); return err })
	eventually(t, "the allocator queues for the lock", func() bool {
		l, err := a.client.List(ctx, "cilium/state/identities/v1/locks/"+labels+"/", kvstore.ListOptions{KeysOnly: true})
		return err == nil && len(l.KVs) == 2
	})
	// The peer writes its number as it does, master key first.
	s.Put(a.client, "cilium/state/identities/v1/id/200000", labels)
	s.Put(a.client, "cilium/state/identities/v1/value/"+labels+"/172.16.0.9", "200000")
	if err := mutex.Unlock(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(); err != nil || id != 200000 {
		t.Fatalf("got %d, %v, want the peer's number", uint32(id), err)
	}
	if st := a.Stats(); st.Locked != 1 {
		t.Errorf("locked: got %d", st.Locked)
	}
	eventually(t, "the lock is given up", func() bool {
		l, err := a.client.List(ctx, "cilium/state/identities/v1/locks/", kvstore.ListOptions{KeysOnly: true})
		return err == nil && len(l.KVs) == 0
	})

	// The same, with a peer that only has the lock and writes nothing.
	other := set("db")
	mutex = concurrency.NewMutex(session, "cilium/state/identities/v1/locks/"+other.String())
	if err := mutex.Lock(ctx); err != nil {
		t.Fatal(err)
	}
	g = errgroup.Group{}
	g.Go(func() (err error) { id, err = a.Allocate(ctx, other); return err })
	eventually(t, "the allocator queues again", func() bool { return a.Stats().Locked == 2 })
	if err := mutex.Unlock(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(); err != nil || !a.Allocator.known.inRange(id) || id == 200000 {
		t.Fatalf("got %d, %v", uint32(id), err)
	}
}

func TestNewAllocator_Refuses(t *testing.T) {
	node := netip.MustParseAddr("172.16.0.1")
	for name, cfg := range map[string]Config{
		"no-node":    {Cluster: "c3", ClusterID: 3},
		"bad-name":   {Cluster: "C3", ClusterID: 3, Node: node},
		"bad-number": {Cluster: "c3", ClusterID: 256, Node: node},
		"bad-size":   {Cluster: "c3", ClusterID: 3, MaxClusters: 100, Node: node},
	} {
		if _, err := NewAllocator(cfg, nil, nil, nil, nil); err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
}
