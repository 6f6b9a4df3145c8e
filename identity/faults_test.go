// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

func TestAllocator_MasterKeyVanishes(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	a := start(t, s, "172.16.0.1")
	id := a.must(t, set("web"))
	key := schema.IdentityMasterKey(uint32(id))
	for range 2 {
		eventually(t, "known", func() bool { _, ok := a.known.Get(schema.IdentityKey{Cluster: "c3", ID: uint32(id)}); return ok })
		if _, err := a.client.Delete(timeout(t), key); err != nil {
			t.Fatal(err)
		}
		eventually(t, "written again", func() bool { v, _ := a.value(t, key); return v == set("web").String() })
	}
	// The store has the key before the allocator has the answer that it counts.
	eventually(t, "both counted", func() bool { return a.Stats().Recreated >= 2 })
	if st := a.Stats(); st.Renumbered != 0 {
		t.Errorf("got %+v", st)
	}
}

// A key that was written again vanishes once more before the mirror has shown it: no event tells it.
func TestAllocator_MasterKeyVanishesUnseen(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	mirror := newGate()
	a := startBehind(t, s.Client(), Config{Node: netip.MustParseAddr("172.16.0.1")}, mirror)
	id := a.must(t, set("web"))
	key := schema.IdentityMasterKey(uint32(id))
	eventually(t, "known", func() bool { return a.Allocator.known.shows(set("web").String(), id) })
	open := mirror.shut()
	remove := func() {
		t.Helper()
		if _, err := a.client.Delete(timeout(t), key); err != nil {
			t.Fatal(err)
		}
	}
	remove()
	a.known.Delete("etcd", 0, schema.IdentityKey{Cluster: "c3", ID: uint32(id)})
	eventually(t, "written again", func() bool { v, _ := a.value(t, key); return v != "" })
	remove()
	open()
	eventually(t, "written once more", func() bool { v, _ := a.value(t, key); return v == set("web").String() })
	eventually(t, "seen", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.unseen) == 0 && a.Allocator.known.shows(set("web").String(), id)
	})
}

func TestAllocator_MasterKeyIsTakenByOthers(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	a := start(t, s, "172.16.0.1")
	id := a.must(t, set("web"))
	s.Put(a.client, schema.IdentityMasterKey(uint32(id)), set("other").String())
	labels := set("web").String()
	eventually(t, "another number", func() bool {
		row, ok := a.Held().Get(labels)
		return ok && row.Value.ID != id
	})
	row, _ := a.Held().Get(labels)
	if v, _ := a.value(t, schema.IdentityMasterKey(uint32(row.Value.ID))); v != labels {
		t.Errorf("master key of the new number: got %q", v)
	}
	if got := a.must(t, set("web")); got != row.Value.ID {
		t.Errorf("allocate: got %d, want %d", uint32(got), uint32(row.Value.ID))
	}
	if st := a.Stats(); st.Renumbered != 1 {
		t.Errorf("got %+v", st)
	}
}

// Two numbers for one set: the older one wins, whoever has the other moves.
func TestAllocator_OlderNumberWins(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	a := start(t, s, "172.16.0.1")
	labels := set("web").String()
	s.Put(a.client, schema.IdentityMasterKey(200000), "to be overwritten")
	id := a.must(t, set("web"))
	s.Put(a.client, schema.IdentityReferencesPrefix(labels)+"172.16.0.9", "200000")
	s.Put(a.client, schema.IdentityMasterKey(200000), labels)
	eventually(t, "moved to the older number", func() bool {
		row, _ := a.Held().Get(labels)
		return row.Value.ID == 200000
	})
	if v, _ := a.value(t, schema.IdentityReferenceKey(labels, netip.MustParseAddr("172.16.0.1"))); v != "200000" {
		t.Errorf("reference: got %q", v)
	}
	if id == 200000 {
		t.Error("the set had the older number from the beginning")
	}
}

func TestAllocator_LeaseIsLost(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	a := start(t, s, "172.16.0.1")
	ids := map[string]ID{}
	for i := range 20 {
		app := fmt.Sprint(i)
		ids[app] = a.must(t, set(app))
	}
	lease, _, err := a.session.Lease(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.client.Etcd().Revoke(timeout(t), lease); err != nil {
		t.Fatal(err)
	}
	for app, id := range ids {
		key := schema.IdentityReferenceKey(set(app).String(), netip.MustParseAddr("172.16.0.1"))
		eventually(t, "published again", func() bool {
			v, l := a.value(t, key)
			return v == fmt.Sprint(uint32(id)) && l != lease && l != 0
		})
	}
	// While the lease is lost and the session does not know it, an allocation finds out.
	lease, _, err = a.session.Lease(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.client.Etcd().Revoke(timeout(t), lease); err != nil {
		t.Fatal(err)
	}
	a.must(t, set("late"))
}

func TestAllocator_StoreIsAway(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	a := start(t, s, "172.16.0.1")
	id := a.must(t, set("web"))
	s.Kill()
	if got := a.must(t, set("web")); got != id {
		t.Errorf("a set in use: got %d, want %d", uint32(got), uint32(id))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if got, err := a.Allocate(ctx, set("db")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a new set: got %d, %v", uint32(got), err)
	}
	a.Release(set("web"))
	a.Release(set("web"))
	s.Restart()
	key := schema.IdentityReferenceKey(set("web").String(), netip.MustParseAddr("172.16.0.1"))
	eventually(t, "released when the store is back", func() bool { v, _ := a.value(t, key); return v == "" })
	a.must(t, set("db"))
}

// Whoever gives up while the store works leaves no reference behind.
func TestAllocator_CallerGivesUp(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	a := start(t, s, "172.16.0.1")
	a.must(t, set("first")) // everything is connected
	a.Release(set("first"))
	var g errgroup.Group
	for i := range 400 {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(context.Background(), rand.N(10*time.Millisecond))
			defer cancel()
			labels := set(fmt.Sprint(i))
			if _, err := a.Allocate(ctx, labels); err == nil {
				a.Release(labels)
			} else if !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no reference is left", func() bool {
		a.mu.Lock()
		idle := len(a.uses) == 0
		a.mu.Unlock()
		return idle && len(tails(t, a.client, schema.IdentityValuesPrefix)) == 0
	})
}

// A request that seemed lost arrives after the node has looked for what it may have left behind, and
// when nobody uses the set any more: its reference goes all the same.
func TestAllocator_RequestArrivesLate(t *testing.T) {
	for name, allocate := range map[string]func(*testing.T, *node, Labels){
		"reuse": func(t *testing.T, a *node, labels Labels) { a.must(t, labels) },
		"join": func(t *testing.T, a *node, labels Labels) {
			lease, _, err := a.session.Lease(timeout(t))
			if err != nil {
				t.Fatal(err)
			}
			tr := trial{Allocator: a.Allocator, text: labels.String(), lease: lease}
			key := schema.IdentityReferenceKey(tr.text, netip.MustParseAddr("172.16.0.1"))
			if _, err := tr.join(timeout(t), []reference{{key: key, id: a.Allocator.known.of(tr.text)}}); err == nil {
				t.Fatal("a lost answer is no error")
			}
			a.must(t, labels)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := kvstoretest.Start(t, kvstoretest.Options{})
			c := s.Client()
			late := &chaos{calm: true}
			c.Etcd().KV = chaosKV{KV: c.Etcd().KV, chaos: late}
			other, a := start(t, s, "172.16.0.1"), startAs(t, c, "172.16.0.2")
			labels := set("web")
			id := other.must(t, labels)
			ref := schema.IdentityReferenceKey(labels.String(), netip.MustParseAddr("172.16.0.2"))
			eventually(t, "known", func() bool { return a.Allocator.known.of(labels.String()) == id })
			settle := func() {
				t.Helper()
				eventually(t, "settled", func() bool {
					a.mu.Lock()
					defer a.mu.Unlock()
					return len(a.pending)+len(a.uses) == 0
				})
			}
			late.delayTxn()
			allocate(t, a, labels)
			a.Release(labels)
			settle()
			for range 2 {
				a.settleDoubts(time.Now())
				settle()
			}
			late.deliver()
			if v, _ := a.value(t, ref); v == "" {
				t.Fatal("the late request wrote no reference")
			}
			a.settleDoubts(time.Now().Add(2 * doubtFor))
			eventually(t, "the reference is gone", func() bool { v, _ := a.value(t, ref); return v == "" })
			settle()
			a.mu.Lock()
			defer a.mu.Unlock()
			if len(a.doubts) > 0 {
				t.Errorf("still in doubt: %v", a.doubts)
			}
		})
	}
}

// A request whose caller has given up puts a reference between the deletion of the set's old one and
// its answer: the reference goes too.
func TestAllocator_RequestArrivesWhileASetEnds(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	labels := set("web")
	ref := schema.IdentityReferenceKey(labels.String(), netip.MustParseAddr("172.16.0.1"))
	var a *node
	once := sync.OnceFunc(func() {
		s.Put(a.client, ref, "200000")
		a.settleLate(labels.String())
	})
	c.Etcd().KV = chaosKV{KV: c.Etcd().KV, chaos: &chaos{calm: true, done: func() { once() }}}
	a = startAs(t, c, "172.16.0.1")
	a.must(t, labels)
	a.Release(labels)
	eventually(t, "no reference is left", func() bool {
		a.mu.Lock()
		idle := len(a.uses)+len(a.pending) == 0
		a.mu.Unlock()
		v, _ := a.value(t, ref)
		return idle && v == ""
	})
}

// What a node had before a restart it gets again, even if the store forgot it meanwhile.
func TestAllocator_Restore(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	a := start(t, s, "172.16.0.1")
	s.Put(a.client, schema.RestingPrefix+"200001", `{"freed":"2026-01-02T15:04:05Z","labels":"`+set("200001").String()+`"}`)
	s.Put(a.client, schema.RestingPrefix+"200002", `{"freed":"2026-01-02T15:04:05Z","labels":"k8s:rests-from-others;"}`)
	s.Put(a.client, schema.RestingPrefix+"200003", `{"freed":"2026-01-02T15:04:05Z"}`)
	for _, want := range []ID{200000, 200001} {
		labels := set(fmt.Sprint(uint32(want)))
		id, err := a.Restore(timeout(t), labels, want)
		if err != nil || id != want {
			t.Errorf("got %d, %v, want %d", uint32(id), err, uint32(want))
		}
	}
	for old, app := range map[ID]string{200000: "taken", 5: "reserved", 300000: "another-cluster", 200002: "rests", 200003: "rests-from-what"} {
		id, err := a.Restore(timeout(t), set(app), old)
		if err != nil || id == old || !a.Allocator.known.inRange(id) {
			t.Errorf("%s: got %d, %v", app, uint32(id), err)
		}
	}
	if id, err := a.Restore(timeout(t), set("200000"), 200005); err != nil || id != 200000 {
		t.Errorf("the store knows another: got %d, %v", uint32(id), err)
	}
}

func TestAllocator_LooksPastJunk(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	a := start(t, s, "172.16.0.1")
	for app, values := range map[string]map[string]string{
		"not-a-number":    {"172.16.0.9": "x"},
		"another-cluster": {"172.16.0.9": "300000"},
		"deeper":          {"a/b": "200000"},
		"no-master":       {"172.16.0.9": "200002"},
		"two":             {"172.16.0.8": "0", "172.16.0.9": "-1"},
	} {
		prefix := schema.IdentityReferencesPrefix(set(app).String())
		for name, v := range values {
			s.Put(a.client, prefix+name, v)
		}
		id := a.must(t, set(app))
		if v, _ := a.value(t, schema.IdentityMasterKey(uint32(id))); v != set(app).String() {
			t.Errorf("%s: number %d stands for %q", app, uint32(id), v)
		}
		if app == "no-master" && id != 200002 {
			t.Errorf("%s: got %d", app, uint32(id))
		}
	}
	// A reference to a number of other labels.
	id := a.must(t, set("x"))
	s.Put(a.client, schema.IdentityReferencesPrefix(set("y").String())+"172.16.0.9", fmt.Sprint(uint32(id)))
	if got := a.must(t, set("y")); got == id {
		t.Errorf("two sets have the number %d", uint32(id))
	}
}

func TestAllocator_Exhausted(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	a := start(t, s, "172.16.0.1")
	// All but two numbers are taken, as far as the mirror knows; one of the two is at rest.
	eventually(t, "synced", a.Allocator.known.table.Synced)
	first, last := Range(3, 255)
	a.known.Update(func(w *state.Writer[schema.IdentityKey, string]) {
		for id := first; id < last-1; id++ {
			w.Put("test", 1, schema.IdentityKey{Cluster: "c3", ID: uint32(id)}, fmt.Sprintf("k8s:n=%d;", id))
		}
	})
	a.known.MarkSynced("test")
	s.Put(a.client, schema.RestingPrefix+fmt.Sprint(uint32(last)), `{"freed":"2026-01-02T15:04:05Z"}`)
	if id := a.must(t, set("the-last-one")); id != last-1 {
		t.Errorf("got %d, want %d", uint32(id), uint32(last-1))
	}
	var exhausted *ExhaustedError
	if id, err := a.Allocate(timeout(t), set("one-too-many")); !errors.As(err, &exhausted) || exhausted.Last != last {
		t.Errorf("got %d, %v", uint32(id), err)
	}
}
