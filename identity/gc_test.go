// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

func newGC(t testing.TB, c *kvstore.Client, cfg GCConfig) *GC {
	t.Helper()
	cfg.Cluster, cfg.ClusterID = "c3", 3
	if cfg.Rate == 0 {
		cfg.Rate = rate.Inf
	}
	g, err := NewGC(cfg, c, kvstoretest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func round(t testing.TB, g *GC) {
	t.Helper()
	if err := g.Round(timeout(t)); err != nil {
		t.Fatal(err)
	}
}

// tails returns what stands under a prefix, without it.
func tails(t testing.TB, c *kvstore.Client, prefix string) []string {
	t.Helper()
	l, err := c.List(timeout(t), prefix, kvstore.ListOptions{KeysOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, kv := range l.KVs {
		got = append(got, kv.Key[len(prefix):])
	}
	return got
}

func TestGC_RemovesAfterTwoRounds(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	put := func(id int, labels string) { s.Put(c, schema.IdentityIDsPrefix+fmt.Sprint(id), labels) }
	put(200000, "k8s:used;")
	s.Put(c, schema.IdentityReferencesPrefix("k8s:used;")+"172.16.0.1", "200000")
	put(200001, "k8s:unused;")
	put(200002, "k8s:written-again;")
	put(200003, "k8s:locked;")
	s.Put(c, schema.IdentityLockPath("k8s:locked;")+"/1234", "")
	put(200004, "k8s:two;") // nobody says this one
	put(200005, "k8s:two;")
	s.Put(c, schema.IdentityReferencesPrefix("k8s:two;")+"172.16.0.1", "200005")
	put(200006, "k8s:comes-back;")
	put(300000, "k8s:unused-of-another-cluster;")
	put(100, "k8s:reserved;")
	s.Put(c, schema.IdentityIDsPrefix+"x", "k8s:no-number;")

	g := newGC(t, c, GCConfig{})
	all := tails(t, c, schema.IdentityIDsPrefix)
	round(t, g)
	if diff := cmp.Diff(all, tails(t, c, schema.IdentityIDsPrefix)); diff != "" {
		t.Fatalf("the first round removes nothing (-want +got):\n%s", diff)
	}
	put(200002, "k8s:written-again;")
	s.Put(c, schema.IdentityReferencesPrefix("k8s:comes-back;")+"172.16.0.1", "200006")
	round(t, g)
	gone := []string{"200001", "200004"}
	want := slices.DeleteFunc(slices.Clone(all), func(id string) bool { return slices.Contains(gone, id) })
	if diff := cmp.Diff(want, tails(t, c, schema.IdentityIDsPrefix)); diff != "" {
		t.Errorf("after the second round (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(gone, tails(t, c, schema.RestingPrefix)); diff != "" {
		t.Errorf("at rest (-want +got):\n%s", diff)
	}
	if st := g.Stats(); st.Removed != 2 || st.Rounds != 2 || st.Resting != 2 || st.Numbers != 7 || st.LastError != nil {
		t.Errorf("got %+v", st)
	}
	round(t, g)
	if diff := cmp.Diff([]string{"200001", "200002", "200004"}, tails(t, c, schema.RestingPrefix)); diff != "" {
		t.Errorf("at rest after the third round (-want +got):\n%s", diff)
	}
	// Another leader knows of no candidates, and begins anew.
	put(200007, "k8s:unused;")
	round(t, g)
	g = newGC(t, c, GCConfig{})
	round(t, g)
	if !slices.Contains(tails(t, c, schema.IdentityIDsPrefix), "200007") {
		t.Error("a new leader removed a number after one round of its own")
	}
}

func TestGC_RestOfNumbers(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	freed := func(ago time.Duration) string {
		return fmt.Sprintf(`{"freed":%q,"labels":"k8s:a;"}`, time.Now().Add(-ago).UTC().Format(time.RFC3339))
	}
	s.Put(c, schema.RestingPrefix+"200000", freed(25*time.Hour))
	s.Put(c, schema.RestingPrefix+"200001", freed(23*time.Hour))
	s.Put(c, schema.RestingPrefix+"200002", "{}x")
	s.Put(c, schema.RestingPrefix+"x", "{}")

	round(t, newGC(t, c, GCConfig{Away: func() bool { return true }}))
	if got := tails(t, c, schema.RestingPrefix); len(got) != 4 {
		t.Errorf("while a remote is away: got %v", got)
	}
	round(t, newGC(t, c, GCConfig{}))
	if diff := cmp.Diff([]string{"200001", "200002", "x"}, tails(t, c, schema.RestingPrefix)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	codec := schema.Restings(c3)
	kv, _, err := c.Get(timeout(t), schema.RestingPrefix+"200002")
	if err != nil {
		t.Fatal(err)
	}
	if r, err := codec.Decode(schema.IdentityKey{Cluster: "c3", ID: 200002}, kv.Value); err != nil || time.Since(r.Freed) > time.Hour {
		t.Errorf("an unreadable rest begins anew: got %+v, %v", r, err)
	}
	round(t, newGC(t, c, GCConfig{Rest: time.Nanosecond}))
	if diff := cmp.Diff([]string{"x"}, tails(t, c, schema.RestingPrefix)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What a collector knows of numbers at rest it does not read again, and what it does not know, or has
// wrong, it does not remove.
func TestGC_RestIsRemembered(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	g := newGC(t, c, GCConfig{})
	resting := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(append([]string{}, want...), tails(t, c, schema.RestingPrefix)); diff != "" {
			t.Fatalf("at rest (-want +got):\n%s", diff)
		}
	}
	s.Put(c, schema.IdentityIDsPrefix+"200001", "k8s:unused;")
	s.Put(c, schema.IdentityIDsPrefix+"200002", "k8s:unused-too;")
	round(t, g)
	round(t, g)
	resting("200001", "200002")
	// By hand: one that began earlier than is remembered, and one of which nothing is.
	long := fmt.Sprintf(`{"freed":%q}`, time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))
	s.Put(c, schema.RestingPrefix+"200002", long)
	s.Put(c, schema.RestingPrefix+"200003", long)
	g.cfg.Rest = time.Minute
	round(t, g)
	resting("200001", "200002", "200003")
	g.cfg.Rest = time.Nanosecond
	round(t, g)
	resting("200002", "200003")
	if st := g.Stats(); st.Resting != 0 {
		t.Errorf("got %+v", st)
	}
	// It was wrong, so all are read again.
	g.cfg.Rest = time.Minute
	round(t, g)
	resting()
}

// Collection and allocation at once: no number in use is ever removed, and a freed one does not
// come back while it rests.
func TestGC_AmongAllocations(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	nodes := []*node{start(t, s, "172.16.0.1"), start(t, s, "172.16.0.2"), start(t, s, "172.16.0.3")}
	c := s.Client()
	g := newGC(t, c, GCConfig{})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	churn, stop := context.WithCancel(ctx)
	defer stop()
	var work errgroup.Group
	for _, n := range nodes {
		for range 4 {
			work.Go(func() error {
				for churn.Err() == nil {
					labels := set(fmt.Sprint(rand.IntN(12)))
					id, err := n.Allocate(ctx, labels)
					if err != nil {
						return err
					}
					// In use here: the master key must stand.
					kv, _, err := c.Get(ctx, schema.IdentityMasterKey(uint32(id)))
					if err != nil {
						return err
					}
					if string(kv.Value) != labels.String() {
						return fmt.Errorf("number %d of %s stands for %q", uint32(id), labels, kv.Value)
					}
					n.Release(labels)
				}
				return nil
			})
		}
	}
	for range rounds {
		round(t, g)
	}
	stop()
	if err := work.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if st := n.Stats(); st.Recreated != 0 || st.Renumbered != 0 {
			t.Errorf("got %+v", st)
		}
	}
	for i := range 12 {
		labels := set(fmt.Sprint(i))
		want := nodes[0].must(t, labels)
		for _, n := range nodes[1:] {
			if got := n.must(t, labels); got != want {
				t.Errorf("%s: got %d and %d", labels, uint32(got), uint32(want))
			}
		}
	}
}

func TestGC_RunEndsWithItsContext(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	g := newGC(t, s.Client(), GCConfig{Interval: time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	var work errgroup.Group
	work.Go(func() error { return g.Run(ctx) })
	eventually(t, "rounds", func() bool { return g.Stats().Rounds > 2 })
	cancel()
	if err := work.Wait(); err != context.Canceled {
		t.Errorf("got %v", err)
	}
}

func TestGC_FencedRemovesNothing(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	s.Put(c, schema.IdentityIDsPrefix+"200001", "k8s:unused;")
	s.Put(c, schema.IdentityIDsPrefix+"200002", "k8s:unused-too;")
	g := newGC(t, c, GCConfig{Rest: 1, Fence: []clientv3.Cmp{clientv3.Compare(clientv3.Version("term"), "=", 1)}})
	s.Put(c, "term", "ours")
	round(t, g)
	s.Put(c, "term", "somebody else's")
	if err := g.Round(timeout(t)); !errors.Is(err, kvstore.ErrFenced) {
		t.Errorf("a round without the right to write: %v, want %v", err, kvstore.ErrFenced)
	}
	if d := cmp.Diff([]string{"200001", "200002"}, tails(t, c, schema.IdentityIDsPrefix)); d != "" {
		t.Errorf("numbers (-want +got):\n%s", d)
	}
	s.Delete(c, "term")
	s.Put(c, "term", "ours again")
	round(t, g)
	round(t, g)
	if got := tails(t, c, schema.IdentityIDsPrefix); len(got) != 0 {
		t.Errorf("%v left", got)
	}
}
