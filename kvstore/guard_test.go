// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// TestGuard_Wiped: the store comes back empty under the same cluster id. Rows stay, owners bring
// theirs back, and each one's absent rows go when it has spoken.
func TestGuard_Wiped(t *testing.T) {
	t.Parallel()
	for _, overtaken := range []bool{false, true} {
		t.Run(fmt.Sprintf("overtaken-%v", overtaken), func(t *testing.T) {
			t.Parallel()
			g := newGuarded(t, guardConfig(), 20)
			g.Proxy.Part()
			g.Wipe()
			if overtaken {
				g.Burn(g.direct, 400)
			}
			g.Proxy.Rejoin()
			g.wantHeld(t, 200)
			g.wantSynced(t, false)
			if g.table.Len() != 200 {
				t.Fatalf("%d rows, want all 200", g.table.Len())
			}
			if st := g.guard.Status(); st.Lineage != kvstore.ContinuityBroken || len(st.Hold.Owners) != 10 {
				t.Fatalf("status is %+v", st)
			}
			g.revive(t, 2)
			// The first comes back with fewer rows than it had.
			g.publish("n0", 15)
			g.wantHeld(t, 185)
			g.confirm(t, "n0", 2)
			g.wantHeld(t, 180)
			// What it deletes on the new lineage goes at once, and all of it.
			g.Commit(g.direct, clientv3.OpDelete(kvstoretest.Prefix+"n0-", clientv3.WithPrefix()))
			kvstoretest.Eventually(t, func() string {
				if g.table.Len() != 180 {
					return fmt.Sprintf("%d rows, want 180", g.table.Len())
				}
				return ""
			})
			for n := 1; n < 10; n++ {
				owner := fmt.Sprintf("n%d", n)
				g.publish(owner, 20)
				g.confirm(t, owner, 2)
			}
			g.wantSynced(t, true)
			g.wantEqual(t)
			if g.table.Len() != 180 {
				t.Fatalf("%d rows, want 180", g.table.Len())
			}
		})
	}
}

// TestGuard_RealDeletion: what owners delete is gone at once, however much it is.
func TestGuard_RealDeletion(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, guardConfig(), 20)
	for n := range 10 {
		var ops []clientv3.Op
		for i := range 7 {
			ops = append(ops, clientv3.OpDelete(fmt.Sprintf("%sn%d-%06d", kvstoretest.Prefix, n, i)))
		}
		g.Commit(g.direct, ops...)
	}
	g.wantEqual(t)
	g.wantHeld(t, 0)
	g.wantSynced(t, true)
	// The same while the watch was away.
	g.Proxy.Part()
	for n := range 10 {
		g.Commit(g.direct, clientv3.OpDelete(fmt.Sprintf("%sn%d-00001", kvstoretest.Prefix, n), clientv3.WithPrefix()))
	}
	g.Burn(g.direct, 200)
	g.Proxy.Rejoin()
	g.wantEqual(t)
	g.wantHeld(t, 0)
}

// TestGuard_EmptiedByHand: a deletion that spans owners is held; what owners write again is released,
// the rest goes after a short while.
func TestGuard_EmptiedByHand(t *testing.T) {
	t.Parallel()
	cfg := guardConfig()
	cfg.Brief = 300 * time.Millisecond
	g := newGuarded(t, cfg, 20)
	g.Commit(g.direct, clientv3.OpDelete(kvstoretest.Prefix, clientv3.WithPrefix()))
	kvstoretest.Eventually(t, func() string {
		if st := g.guard.Status().Hold; !st.Stuck || st.Rows != 200 {
			return fmt.Sprintf("not stuck with 200 rows: %+v", st)
		}
		return ""
	})
	if g.table.Len() != 200 {
		t.Fatalf("%d rows, want all 200", g.table.Len())
	}
	g.publishAll(9, 20) // one never returns
	g.wantSynced(t, true)
	g.wantEqual(t)
}

// TestGuard_FirstStart holds nothing.
func TestGuard_FirstStart(t *testing.T) {
	t.Parallel()
	g := &guarded{Server: plain(t)}
	g.direct = g.Client()
	g.start(t, guardConfig(), nil)
	g.wantSynced(t, true)
	g.publish("n0", 5)
	g.wantEqual(t)
	g.Commit(g.direct, clientv3.OpDelete(kvstoretest.Prefix, clientv3.WithPrefix()))
	g.wantEqual(t)
}

// TestGuard_Decisions: adopt lets go, reseed writes back.
func TestGuard_Decisions(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, guardConfig(), 20)
	g.Wipe()
	g.wantHeld(t, 200)
	g.revive(t, 2)
	g.publish("n0", 20)
	g.wantHeld(t, 180)
	if n, err := g.guard.Reseed(t.Context()); err != nil || n != 180 {
		t.Fatalf("reseed wrote %d rows, %v; want 180", n, err)
	}
	g.wantSynced(t, true)
	g.wantEqual(t)

	g.Wipe()
	g.wantHeld(t, 200)
	g.revive(t, 3)
	kvstoretest.Eventually(t, func() string {
		if st := g.guard.Status(); st.Epoch != epoch(3) || st.Hold.Rows != 200 {
			return fmt.Sprintf("epoch is %s", st.Epoch)
		}
		return ""
	})
	g.adopt(t, 200)
	g.wantSynced(t, true)
	g.wantEqual(t)
}

// TestGuard_Restored: an old snapshot comes back, plain, below or above what was seen.
func TestGuard_Restored(t *testing.T) {
	t.Parallel()
	for _, overtaken := range []bool{false, true} {
		t.Run(fmt.Sprintf("overtaken-%v", overtaken), func(t *testing.T) {
			t.Parallel()
			g := newGuarded(t, guardConfig(), 2)
			old := filepath.Join(t.TempDir(), "old")
			g.Save(old)
			g.Delete(g.direct, kvstoretest.Prefix+"n0-000000") // comes back, and its owner deletes it again
			g.publish("n1", 5)
			g.wantEqual(t)
			g.Proxy.Part()
			g.RollBack(old)
			if overtaken {
				g.Burn(g.direct, 100)
			}
			g.Proxy.Rejoin()
			g.wantHeld(t, 3)
			g.wantSynced(t, false)
			if g.table.Len() != 23 {
				t.Fatalf("%d rows, want 20 and 3 held", g.table.Len())
			}
			g.revive(t, 2)
			g.publish("n1", 4)
			g.Delete(g.direct, kvstoretest.Prefix+"n0-000000")
			g.wantHeld(t, 1)
			g.confirm(t, "n1", 2)
			g.wantSynced(t, true)
			g.wantEqual(t)
		})
	}
}

// TestGuard_Compacted: a history that cannot be asked for any more holds until owners have spoken.
func TestGuard_Compacted(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, guardConfig(), 2)
	g.Proxy.Part()
	g.Delete(g.direct, kvstoretest.Prefix+"n0-000000")
	g.publish("n9", 2) // the last that was seen before
	g.Compact(g.direct)
	g.Proxy.Rejoin()
	g.wantHeld(t, 1)
	if st := g.guard.Status(); st.Lineage != kvstore.ContinuityUnproven {
		t.Fatalf("lineage is %s", st.Lineage)
	}
	g.confirm(t, "n0", 1)
	g.wantSynced(t, true)
	g.wantEqual(t)
}

// TestGuard_NextWatch: what one watch held is held by the next one of the same rows.
func TestGuard_NextWatch(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, guardConfig(), 2)
	run := func() (stop func()) {
		g.watchOwners(t)
		return kvstoretest.Go(t, g.watch.Run)
	}
	g.stopWatch()
	g.Delete(g.direct, kvstoretest.Prefix+"n0-000000")
	stop := run()
	g.wantSynced(t, true)
	g.wantEqual(t)
	g.Wipe()
	g.wantHeld(t, 19)
	stop()
	if holding, _ := g.guard.Holding(); !holding {
		t.Fatal("the hold ended with the watch")
	}
	run()
	g.wantHeld(t, 19)
	g.wantSynced(t, false)
	g.revive(t, 2)
	g.confirmAll(t, 10, 2)
	g.wantSynced(t, true)
	g.wantEqual(t)
}

// TestGuard_OneOwnerOfMany: a watch that sees rows of only one owner go asks what else went.
func TestGuard_OneOwnerOfMany(t *testing.T) {
	t.Parallel()
	g := newUnwatched(t, 1, 5)
	g.start(t, guardConfig(), nil)
	g.wantSynced(t, true)
	g.Commit(g.direct, clientv3.OpDelete(kvstoretest.Prefix, clientv3.WithPrefix()), clientv3.OpDelete(schema.EpochKey))
	g.wantHeld(t, 5)
	g.wantSynced(t, false)
	g.revive(t, 1)
	g.publish("n0", 5)
	g.wantSynced(t, true)
	g.Commit(g.direct, clientv3.OpDelete(kvstoretest.Prefix, clientv3.WithPrefix()))
	g.wantEqual(t)
}

// TestGuard_WordBeforeRows: an owner's word, a decision and the end of a limit arrive while the watch of
// the rows is behind. The rows are in the store again, so they are never let go.
func TestGuard_WordBeforeRows(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"word", "decision", "limit"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			cfg := guardConfig()
			if by == "limit" {
				cfg.Limit, cfg.Owners = time.Second, false
			}
			g := newUnwatched(t, 10, 20)
			// The guard is connected all the time, the watch is not.
			g.start(t, cfg, func() { g.guard.Use(g.direct) })
			g.wantSynced(t, true)
			before := map[string]uint64{}
			for r := range g.table.All() {
				before[r.Key] = r.Revision
			}
			g.Wipe()
			g.wantHeld(t, 200)
			g.Proxy.Part()
			g.publishAll(10, 20)
			g.revive(t, 2)
			switch by {
			case "word":
				g.confirmAll(t, 10, 2)
				kvstoretest.Eventually(t, func() string {
					for _, o := range g.guard.Status().Hold.Owners {
						if !o.Confirmed {
							return o.Name + " is not heard"
						}
					}
					return ""
				})
			case "decision":
				if _, _, err := g.guard.Adopt(t.Context(), "test"); err != nil {
					t.Fatal(err)
				}
			case "limit":
				kvstoretest.Eventually(t, func() string {
					if left := g.guard.Status().Hold.Left; left > 0 {
						return fmt.Sprintf("%s are left", left)
					}
					return ""
				})
			}
			g.Proxy.Rejoin()
			g.wantSynced(t, true)
			g.wantEqual(t)
			for r := range g.table.All() {
				if r.Revision != before[r.Key] {
					t.Fatalf("%s was let go and came back", r.Key)
				}
			}
		})
	}
}

// TestGuard_WrittenAgain: the store comes back empty and is filled with the same rows in the same order
// before anybody looks. No node has the lease that it had.
func TestGuard_WrittenAgain(t *testing.T) {
	t.Parallel()
	cfg := guardConfig()
	cfg.Owners = false // no epoch tells
	g := &guarded{Server: plain(t)}
	g.direct = g.Client()
	put := func(key string) {
		lease, err := g.direct.Etcd().Grant(t.Context(), 3600)
		if err != nil {
			t.Fatal(err)
		}
		g.Commit(g.direct, clientv3.OpPut(kvstoretest.Prefix+key, "x", clientv3.WithLease(lease.ID)))
	}
	put("n0-a")
	put("n1-b")
	g.start(t, cfg, nil)
	g.wantSynced(t, true)
	g.Proxy.Part()
	g.Wipe()
	put("n2-c")
	put("n1-b") // at the revision that it had
	g.Burn(g.direct, 5)
	g.Proxy.Rejoin()
	g.wantHeld(t, 1)
	g.wantSynced(t, false)
}

// TestGuard_Foreign: a store without owners' rows is held by the limit alone.
func TestGuard_Foreign(t *testing.T) {
	t.Parallel()
	cfg := guardConfig()
	cfg.Owners, cfg.Limit = false, 2*time.Second
	g := newGuarded(t, cfg, 2)
	g.Wipe()
	g.wantHeld(t, 20)
	g.publish("n0", 2)
	g.wantHeld(t, 18)
	g.Put(g.direct, schema.HeartbeatKey, "now")
	g.wantSynced(t, true)
	g.wantEqual(t)
}
