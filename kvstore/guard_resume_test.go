// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/state"
)

// otherPrefix is what a second watch of the same client follows.
const otherPrefix = "weft/other/"

func (g *guarded) watchOther(t *testing.T, guard *kvstore.Guard) (*state.Table[string, string], *kvstore.Watch[string, string]) {
	t.Helper()
	cfg := kvstoretest.WatchConfig()
	cfg.Guard = guard
	codec := kvstoretest.Codec()
	codec.Prefix = otherPrefix
	table := kvstoretest.Table()
	watch := kvstore.NewWatch(g.client, codec, table, cfg, kvstoretest.Log(t))
	kvstoretest.Go(t, watch.Run)
	return table, watch
}

// TestGuard_ResumedOverSnapshot: a watch whose connection comes back to an old snapshot, at a revision
// above its own, does not go on over it, though all that it saw itself still stands where it was.
func TestGuard_ResumedOverSnapshot(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		last func(*guarded)    // what was seen last before, by the one watch or the other
		seen map[string]string // then
	}{
		{
			"another watch saw a put",
			func(g *guarded) { g.publish("n1", 3) },
			map[string]string{"a": "1", "b": "1"},
		},
		{
			"it saw a deletion",
			func(g *guarded) { g.Delete(g.direct, otherPrefix+"a") },
			map[string]string{"b": "1"},
		},
		{
			"another watch saw a deletion",
			func(g *guarded) { g.Delete(g.direct, kvstoretest.Prefix+"n0-000000") },
			map[string]string{"a": "1", "b": "1"},
		},
	} {
		for _, judged := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, judged %v", tt.name, judged), func(t *testing.T) {
				t.Parallel()
				g := newGuarded(t, guardConfig(), 2)
				g.Put(g.direct, otherPrefix+"a", "1")
				g.Put(g.direct, otherPrefix+"b", "1")
				guard := g.guard
				if !judged {
					guard = nil
				}
				table, watch := g.watchOther(t, guard)
				kvstoretest.WantRows(t, table, map[string]string{"a": "1", "b": "1"})
				old := filepath.Join(t.TempDir(), "old")
				g.Save(old)
				tt.last(g)
				g.wantEqual(t)
				kvstoretest.WantRows(t, table, tt.seen)
				newest := g.Put(g.direct, "burn", "x")
				kvstoretest.Eventually(t, func() string {
					if at := watch.Status().Revision; at < newest {
						return fmt.Sprintf("it is at revision %d, want %d", at, newest)
					}
					return ""
				})
				g.stopWatch() // it would tell the guard
				g.Proxy.Part()
				g.RollBack(old)
				g.Put(g.direct, otherPrefix+"new", "1")
				g.Burn(g.direct, 20) // fewer than are listed for
				g.Proxy.Rejoin()
				kvstoretest.WantRows(t, table, map[string]string{"a": "1", "b": "1", "new": "1"})
				if st := g.guard.Status(); judged && st.Lineage != kvstore.ContinuityBroken {
					t.Fatalf("lineage is %s", st.Lineage)
				}
			})
		}
	}
}

// TestGuard_ListsWithTheOthers: a watch that is given no guard lists once more when the guard of its
// client hears of a new epoch.
func TestGuard_ListsWithTheOthers(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, guardConfig(), 2)
	table, watch := g.watchOther(t, nil)
	kvstoretest.WantRows(t, table, map[string]string{})
	kvstoretest.Eventually(t, func() string {
		if !watch.Status().Connected {
			return "not connected"
		}
		return ""
	})
	before := watch.Status().Lists
	g.revive(t, 2)
	kvstoretest.Eventually(t, func() string {
		if watch.Status().Lists == before {
			return "not listed again"
		}
		return ""
	})
}
