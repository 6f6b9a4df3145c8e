// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// heldID returns the number a node uses for a set.
func (n *node) heldID(app string) ID {
	row, _ := n.Held().Get(set(app).String())
	return row.Value.ID
}

// believe makes a node use another number for a set, as one that was away while it changed.
func (n *node) believe(app string, id ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.setIDLocked(n.uses[set(app).String()], id)
}

// wipe empties the store and waits until a node has a lease of the new one.
func wipe(t *testing.T, s *kvstoretest.Server, nodes ...*node) {
	t.Helper()
	var leases []uint64
	for _, n := range nodes {
		l, _ := n.session.Current()
		leases = append(leases, l.Generation)
	}
	s.Wipe()
	for i, n := range nodes {
		eventually(t, "a new lease", func() bool { l, _ := n.session.Current(); return l.Generation > leases[i] })
	}
}

// Two nodes fill a wiped store at the same time: what they agree on has its old number, of two
// numbers of one set the one made first stays, and of two sets with one number the one made first has it.
func TestConflict_WipedStore(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	a, b := start(t, s, "172.16.0.1"), start(t, s, "172.16.0.2")
	const n = 200
	want := map[string]ID{}
	for i := range n {
		app := fmt.Sprint(i)
		want[app] = a.must(t, set(app))
		if got := b.must(t, set(app)); got != want[app] {
			t.Fatalf("%s: got %d and %d", app, uint32(want[app]), uint32(got))
		}
	}
	for _, app := range []string{"rival", "x"} {
		a.must(t, set(app))
	}
	for _, app := range []string{"rival", "y"} {
		b.must(t, set(app))
	}
	// Numbers that none of the sets above was given by chance.
	var free []ID
	for id := ID(200001); len(free) < 3; id++ {
		if !slices.Contains(slices.Collect(maps.Values(want)), id) {
			free = append(free, id)
		}
	}
	one, other, both := free[0], free[1], free[2]
	a.believe("rival", one)
	b.believe("rival", other)
	a.believe("x", both)
	b.believe("y", both)
	wipe(t, s, a, b)

	eventually(t, "two sets, two numbers", func() bool {
		x, y := a.heldID("x"), b.heldID("y")
		return x != y && (x == both) != (y == both)
	})
	eventually(t, "one set, one number", func() bool {
		id := a.heldID("rival")
		return id == b.heldID("rival") && (id == one || id == other)
	})
	agree := func(who *node, app string, id ID) {
		t.Helper()
		text := set(app).String()
		eventually(t, app+" stands in the store", func() bool {
			master, _ := who.value(t, schema.IdentityMasterKey(uint32(id)))
			ref, _ := who.value(t, who.referenceKey(text))
			return master == text && ref == fmt.Sprint(uint32(id))
		})
	}
	for app, id := range want {
		for _, who := range []*node{a, b} {
			if got := who.heldID(app); got != id {
				t.Errorf("%s: got %d, want %d", app, uint32(got), uint32(id))
			}
			agree(who, app, id)
		}
	}
	agree(a, "x", a.heldID("x"))
	agree(b, "y", b.heldID("y"))
	agree(a, "rival", a.heldID("rival"))
	agree(b, "rival", a.heldID("rival"))
	sa, sb := a.Stats(), b.Stats()
	if sa.Taken+sb.Taken == 0 || sa.Rivals+sb.Rivals == 0 || sa.Recreated+sb.Recreated < n {
		t.Errorf("got %+v and %+v", sa, sb)
	}
}

// Exhausted, freed, exhausted: waiting for nothing, and no number twice.
func TestConflict_ExhaustedAgainAndAgain(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	a := start(t, s, "172.16.0.1")
	a.Allocator.known.last = a.Allocator.known.first + 19
	g := newGC(t, a.client, GCConfig{Rest: time.Nanosecond})
	for turn := range 3 {
		had := map[ID]bool{}
		app := func(i int) string { return fmt.Sprintf("%d-%d", turn, i) }
		for i := range 20 {
			id := a.must(t, set(app(i)))
			if had[id] {
				t.Errorf("number %d was given twice", uint32(id))
			}
			had[id] = true
		}
		var exhausted *ExhaustedError
		eventually(t, "all are known", func() bool { return a.known.Len() == 20 })
		if id, err := a.Allocate(timeout(t), set("too-many")); !errors.As(err, &exhausted) {
			t.Errorf("got %d, %v", uint32(id), err)
		}
		for i := range 20 {
			a.Release(set(app(i)))
		}
		eventually(t, "released", func() bool { return len(tails(t, a.client, schema.IdentityValuesPrefix)) == 0 })
		for len(tails(t, a.client, schema.IdentityIDsPrefix))+len(tails(t, a.client, schema.RestingPrefix)) > 0 {
			round(t, g)
		}
		eventually(t, "forgotten", func() bool { return a.known.Len() == 0 })
	}
	if st := a.Stats(); st.Exhausted != 3 || st.Created != 60 {
		t.Errorf("got %+v", st)
	}
}

// Two nodes with one address share their references: when one lets go, the other writes its own again.
func TestConflict_OneAddress(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	same := Config{Node: netip.MustParseAddr("172.16.0.1"), SyncInterval: 50 * time.Millisecond}
	a, b := startWith(t, s.Client(), same), startWith(t, s.Client(), same)
	id := a.must(t, set("web"))
	if got := b.must(t, set("web")); got != id {
		t.Fatalf("got %d, want %d", uint32(got), uint32(id))
	}
	a.Release(set("web"))
	eventually(t, "one has let go", func() bool { return a.Held().Len() == 0 })
	key := b.referenceKey(set("web").String())
	lease, _, err := b.session.Lease(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other's reference", func() bool { v, l := b.value(t, key); return v != "" && l == lease })
	if got := b.heldID("web"); got != id {
		t.Errorf("got %d, want %d", uint32(got), uint32(id))
	}
}

// A master key is deleted by hand, and its number is taken by another set before the users of the
// first can write it again.
func TestConflict_DeletedByHand(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	a, b := start(t, s, "172.16.0.1"), start(t, s, "172.16.0.2")
	id := a.must(t, set("web"))
	a.stop() // frozen
	s.Delete(b.client, schema.IdentityMasterKey(uint32(id)))
	eventually(t, "gone", func() bool { return b.known.Len() == 0 })
	if got, err := b.Restore(timeout(t), set("thief"), id); err != nil || got != id {
		t.Fatalf("got %d, %v", uint32(got), err)
	}
	again := start(t, s, "172.16.0.1")
	got, err := again.Restore(timeout(t), set("web"), id)
	if err != nil || got == id {
		t.Errorf("got %d, %v", uint32(got), err)
	}
	if b.heldID("thief") != id || b.Stats().Renumbered != 0 {
		t.Errorf("the one that is in the store had to move")
	}
}

// A number that vanished is not given to another set while any other is free.
func TestConflict_VanishedNumbersAreLast(t *testing.T) {
	k := newKnownNumbers(Config{Cluster: "c3", ClusterID: 3}, state.NewTable[schema.IdentityKey]("t", state.Equal[string]))
	k.last = k.first + 9
	k.usedHere = func(ID) bool { return false }
	for id := k.first; id <= k.last-1; id++ {
		k.apply(state.Change[schema.IdentityKey, string]{
			Row: state.Row[schema.IdentityKey, string]{Key: k.key(id), Value: fmt.Sprint(uint32(id))}, Deleted: true,
		})
	}
	if id, err := k.pick(nil); err != nil || id != k.last {
		t.Errorf("got %d, %v, want %d", uint32(id), err, uint32(k.last))
	}
	if id, err := k.pick(nil); err != nil || id == k.last {
		t.Errorf("the last resort: got %d, %v", uint32(id), err)
	}
	if got := k.formerly(fmt.Sprint(uint32(k.first))); got != k.first {
		t.Errorf("got %d, want %d", uint32(got), uint32(k.first))
	}
}
