// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// hold is the hold of a store, as a Config takes it.
type hold struct {
	mu      sync.Mutex
	held    bool
	changed chan struct{}
}

func newHold(held bool) *hold { return &hold{held: held, changed: make(chan struct{})} }

func (h *hold) holding() (bool, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held, h.changed
}

func (h *hold) set(held bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = held
	close(h.changed)
	h.changed = make(chan struct{})
}

// On hold, numbers that are known are had, also from a mirror that has not synced, and whatever is
// new waits without keeping anything else from being settled.
func TestHold_OnlyKnownNumbers(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	h := newHold(true)
	a := startWith(t, s.Client(), Config{Node: netip.MustParseAddr("172.16.0.1"), Holding: h.holding})
	a.known.Put("checkpoint", 1, schema.IdentityKey{Cluster: "c3", ID: 200007}, set("known").String())
	eventually(t, "indexed", func() bool { return a.Allocator.known.of(set("known").String()) == 200007 })
	s.Put(a.client, schema.IdentityMasterKey(200002), set("other").String())

	if id := a.must(t, set("known")); id != 200007 {
		t.Errorf("known set: got %d", uint32(id))
	}
	if id, err := a.Restore(timeout(t), set("old"), 200001); err != nil || id != 200001 {
		t.Errorf("restore: got %d, %v", uint32(id), err)
	}
	ctx, cancel := context.WithCancel(timeout(t))
	defer cancel()
	var gone, taken, fresh errgroup.Group
	gone.Go(func() error { _, err := a.Allocate(ctx, set("gone")); return err })
	var got [2]ID
	taken.Go(func() (err error) { got[0], err = a.Restore(timeout(t), set("taken"), 200002); return err })
	fresh.Go(func() (err error) { got[1], err = a.Allocate(timeout(t), set("fresh")); return err })
	eventually(t, "three wait", func() bool { return a.Stats().Waiting == 3 })
	if w := a.Waiting(); len(w) != 3 || w[0].Waiters != 1 || w[0].Since.IsZero() {
		t.Errorf("got %+v", w)
	}
	cancel()
	if err := gone.Wait(); !errors.Is(err, ErrHolding) || !errors.Is(err, context.Canceled) {
		t.Errorf("who gives up: got %v", err)
	}

	// The lease is lost meanwhile: the sets that wait do not hold up the others.
	lease, _, err := a.session.Lease(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.client.Etcd().Revoke(timeout(t), lease); err != nil {
		t.Fatal(err)
	}
	for _, app := range []string{"known", "old"} {
		key := schema.IdentityReferenceKey(set(app).String(), netip.MustParseAddr("172.16.0.1"))
		eventually(t, "published again", func() bool { v, l := a.value(t, key); return v != "" && l != lease })
	}

	// One of the sets turns up in the mirror, the other gets a new number afterwards.
	s.Put(a.client, schema.IdentityMasterKey(200003), set("fresh").String())
	if err := fresh.Wait(); err != nil || got[1] != 200003 {
		t.Errorf("a set that turned up: got %d, %v", uint32(got[1]), err)
	}
	a.known.MarkSynced("checkpoint")
	h.set(false)
	if err := taken.Wait(); err != nil || got[0] == 200002 {
		t.Errorf("a set whose number is taken: got %d, %v", uint32(got[0]), err)
	}
	if st := a.Stats(); st.Waiting != 0 || st.Renumbered != 0 {
		t.Errorf("got %+v", st)
	}
}

func TestHold_NothingIsCollected(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	s.Put(c, schema.IdentityMasterKey(200000), "k8s:unused;")
	s.Put(c, schema.RestingPrefix+"200001", `{"freed":"2026-01-02T15:04:05Z"}`)
	h := newHold(false)
	g := newGC(t, c, GCConfig{Holding: h.holding})
	round(t, g)
	s.Put(c, schema.RestingPrefix+"200002", `{"freed":"2026-01-02T15:04:05Z"}`)
	h.set(true)
	round(t, g)
	round(t, g)
	h.set(false)
	round(t, g) // the first of two
	if got := tails(t, c, schema.IdentityIDsPrefix); len(got) != 1 {
		t.Errorf("numbers: got %v", got)
	}
	round(t, g)
	if got := tails(t, c, schema.IdentityIDsPrefix); len(got) != 0 {
		t.Errorf("numbers after the hold: got %v", got)
	}
	if st := g.Stats(); st.Held != 2 || st.Removed != 1 {
		t.Errorf("got %+v", st)
	}
}

// What somebody deletes by hand while the mirror keeps it is written again, at the old number.
func TestHold_PutsBackWhatIsHeld(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	h := newHold(false)
	a := startWith(t, s.Client(), Config{Node: netip.MustParseAddr("172.16.0.1"), Holding: h.holding})
	id := a.must(t, set("held"))
	ref := a.referenceKey(set("held").String())
	if _, err := a.client.Delete(timeout(t), ref); err != nil {
		t.Fatal(err)
	}
	h.set(true)
	eventually(t, "reference is back", func() bool {
		kv, ok, err := a.client.Get(timeout(t), ref)
		return err == nil && ok && string(kv.Value) == id.String()
	})
}

// A store that is set back to an earlier state has references again that were removed since, on a lease
// that is kept alive. They go, whatever is used stays, and the number is collected.
func TestHold_ReferencesOfAnEarlierState(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	h := newHold(false)
	a := startWith(t, s.Client(), Config{Node: netip.MustParseAddr("172.16.0.1"), Holding: h.holding})
	kept, gone := a.must(t, set("kept")), a.must(t, set("gone"))
	other := schema.IdentityReferencesPrefix(set("gone").String()) + "172.16.0.9" // not ours, whoever wrote it
	lease, _, err := a.session.Lease(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	s.Commit(a.client, clientv3.OpPut(other, gone.String(), clientv3.WithLease(lease)))
	copied := t.TempDir()
	s.Save(copied)
	a.Release(set("gone"))
	ref := a.referenceKey(set("gone").String())
	removed := func() bool {
		_, there, err := a.client.Get(timeout(t), ref)
		return err == nil && !there
	}
	eventually(t, "reference removed", removed)
	later := a.must(t, set("later"))

	s.RollBack(copied)
	if removed() {
		t.Fatal("the state before has no reference")
	}
	h.set(true)
	h.set(false)
	eventually(t, "reference of an earlier state removed", removed)
	for app, id := range map[string]ID{"kept": kept, "later": later} {
		ref := a.referenceKey(set(app).String())
		eventually(t, "reference to "+app, func() bool { v, _ := a.value(t, ref); return v == id.String() })
	}
	if _, there, err := a.client.Get(timeout(t), other); err != nil || !there {
		t.Errorf("the reference of another node is there: %v, %v", there, err)
	}
	if _, used := a.Held().Get(set("gone").String()); used {
		t.Error("the set is used again")
	}
	if now, _, err := a.session.Lease(timeout(t)); err != nil || now != lease {
		t.Errorf("the lease is another one, %v: this shows nothing", err)
	}
}
