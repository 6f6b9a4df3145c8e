// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/state"
)

type storeFixture struct {
	*kvstoretest.Server
	direct *kvstore.Client
	table  *state.Table[string, string]
	sess   *kvstore.Session
	store  *kvstore.Store[string, string]
}

const local state.Source = "local"

func storeConfig() kvstore.StoreConfig[string, string] {
	return kvstore.StoreConfig[string, string]{
		Owns:       func(k, _ string) bool { return strings.HasPrefix(k, "our") },
		Follow:     kvstoretest.WatchConfig(),
		MinBackoff: time.Millisecond,
		MaxBackoff: 50 * time.Millisecond,
	}
}

func newStore(t *testing.T, leased bool, cfg kvstore.StoreConfig[string, string], before func(f *storeFixture)) *storeFixture {
	t.Helper()
	f := &storeFixture{Server: plain(t), table: kvstoretest.Table()}
	f.direct = f.Client()
	if before != nil {
		before(f)
	}
	c := kvstoretest.NewClient(t, f.ProxyConfig())
	if leased {
		f.sess, _ = session(t, c, kvstore.SessionConfig{})
	}
	f.table.Expect(local)
	f.store = kvstore.NewStore(c, f.sess, kvstoretest.Codec(), f.table, cfg, kvstoretest.Log(t))
	kvstoretest.Go(t, f.store.Run)
	return f
}

func (f *storeFixture) set(k, v string) { f.table.Put(local, 0, k, v) }

func (f *storeFixture) wantIdle(t *testing.T) {
	t.Helper()
	kvstoretest.Eventually(t, func() string {
		if st := f.store.Status(); st.Pending > 0 || st.Failed > 0 || !st.Listed || st.Rows != f.table.Len() {
			return fmt.Sprintf("not idle: %+v", st)
		}
		return ""
	})
}

func TestStore_FollowsTable(t *testing.T) {
	t.Parallel()
	f := newStore(t, true, storeConfig(), func(f *storeFixture) { f.Put(f.direct, kvstoretest.Prefix+"others", "x") })
	for i := range 250 {
		f.set(fmt.Sprintf("our%d", i), "1")
	}
	f.wantIdle(t)
	f.set("our7", "2")
	f.table.Delete(local, 0, "our8")
	want := kvstoretest.Rows(f.table)
	want["others"] = "x"
	kvstoretest.WantStored(t, f.direct, want)
	f.wantIdle(t)
	if o, ok := f.store.Outcome("our7"); !ok || !o.Done || o.Err != nil {
		t.Fatalf("outcome is %+v", o)
	}
	if _, ok := f.store.Outcome("our8"); ok {
		t.Fatal("a deleted row still has an outcome")
	}
	kv, _, err := f.direct.Get(t.Context(), kvstoretest.Prefix+"our7")
	if err != nil || kv.Lease != lease(t, f.sess).ID {
		t.Fatalf("got lease %x (%v), want the session's", kv.Lease, err)
	}
}

func TestStore_StaleRowsGoOnceSynced(t *testing.T) {
	t.Parallel()
	f := newStore(t, false, storeConfig(), func(f *storeFixture) {
		for _, k := range []string{"our1", "our2", "our3", "others"} {
			f.Put(f.direct, kvstoretest.Prefix+k, "1")
		}
	})
	f.set("our1", "1")
	f.set("our2", "2")
	f.wantIdle(t)
	if got := len(kvstoretest.Stored(t, f.direct)); got != 4 {
		t.Fatalf("%d rows stored before the table is synced, want all 4", got)
	}
	kv, _, _ := f.direct.Get(t.Context(), kvstoretest.Prefix+"our1")
	if kv.ModRevision != kv.CreateRevision {
		t.Fatal("a row that stood as wanted was written again")
	}
	f.table.MarkSynced(local)
	kvstoretest.WantStored(t, f.direct, map[string]string{"our1": "1", "our2": "2", "others": "1"})
}

// A row that stood as wanted when the store began is its own all the same: it goes with the table's.
func TestStore_DeletesWhatAnEarlierLifeWrote(t *testing.T) {
	t.Parallel()
	f := newStore(t, false, storeConfig(), func(f *storeFixture) {
		for _, k := range []string{"our1", "our2", "others"} {
			f.Put(f.direct, kvstoretest.Prefix+k, "1")
		}
	})
	f.set("our1", "1")
	f.set("our2", "1")
	f.set("others", "1")
	f.table.MarkSynced(local)
	f.wantIdle(t)
	f.table.Delete(local, 0, "our1")
	f.table.Delete(local, 0, "others") // not written by us
	kvstoretest.WantStored(t, f.direct, map[string]string{"our2": "1", "others": "1"})
}

// A row that comes into the table after the store has listed is not written if it stands as wanted.
func TestStore_WritesNothingAgain(t *testing.T) {
	t.Parallel()
	f := newStore(t, false, storeConfig(), func(f *storeFixture) {
		f.Put(f.direct, kvstoretest.Prefix+"our1", "1")
		f.Put(f.direct, kvstoretest.Prefix+"our2", "1")
	})
	kvstoretest.Eventually(t, func() string {
		if st := f.store.Status(); !st.Listed || st.Stale != 2 {
			return fmt.Sprintf("%+v", st)
		}
		return ""
	})
	f.set("our1", "1")
	f.set("our2", "2")
	f.wantIdle(t)
	kvstoretest.WantStored(t, f.direct, map[string]string{"our1": "1", "our2": "2"})
	kv, _, err := f.direct.Get(t.Context(), kvstoretest.Prefix+"our1")
	if err != nil || kv.ModRevision != kv.CreateRevision {
		t.Errorf("a row that stood as wanted was written again (%v)", err)
	}
}

// Each deletion has a revision of its own where that is wanted; what is put shares one.
func TestStore_DeleteAlone(t *testing.T) {
	t.Parallel()
	cfg := storeConfig()
	cfg.DeleteAlone = true
	f := newStore(t, false, cfg, func(f *storeFixture) {
		f.Fill(f.direct, kvstoretest.Prefix+"our-old", 3, "x")
	})
	f.table.Update(func(w *state.Writer[string, string]) {
		for i := range 10 {
			w.Put(local, 0, fmt.Sprintf("our%d", i), "1")
		}
	})
	f.wantIdle(t)
	l, err := f.direct.List(t.Context(), kvstoretest.Prefix+"our", kvstore.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	revisions := map[int64]bool{}
	for _, kv := range l.KVs {
		if !strings.HasPrefix(kv.Key, kvstoretest.Prefix+"our-") {
			revisions[kv.ModRevision] = true
		}
	}
	if len(revisions) > 2 { // the store may look before all are in the table
		t.Errorf("10 rows were put in %d revisions", len(revisions))
	}
	f.table.Update(func(w *state.Writer[string, string]) {
		for i := range 10 {
			w.Delete(local, 0, fmt.Sprintf("our%d", i))
		}
	})
	f.table.MarkSynced(local)
	kvstoretest.WantStored(t, f.direct, map[string]string{})
	res, err := f.direct.Etcd().Get(t.Context(), kvstoretest.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	if got := res.Header.Revision - l.Revision; got != 13 {
		t.Errorf("13 rows were deleted in %d revisions", got)
	}
}

func TestStore_ForeignDeleteAndExpiry(t *testing.T) {
	t.Parallel()
	f := newStore(t, true, storeConfig(), nil)
	f.set("our1", "1")
	f.set("our2", "2")
	want := map[string]string{"our1": "1", "our2": "2"}
	kvstoretest.WantStored(t, f.direct, want)
	f.wantIdle(t)

	if _, err := f.direct.Etcd().Delete(t.Context(), kvstoretest.Prefix, clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	kvstoretest.Eventually(t, func() string {
		if f.store.Status().Repaired < 2 {
			return "not repaired"
		}
		return ""
	})
	kvstoretest.WantStored(t, f.direct, want)
	f.wantIdle(t)

	old := lease(t, f.sess)
	if _, err := f.direct.Etcd().Revoke(t.Context(), old.ID); err != nil {
		t.Fatal(err)
	}
	// The store finds out by itself: the session refreshes its lease in minutes only.
	wantGeneration(t, f.sess, 2)
	kvstoretest.WantStored(t, f.direct, want)
	f.wantIdle(t)
	for k := range want {
		if kv, _, _ := f.direct.Get(t.Context(), kvstoretest.Prefix+k); kv.Lease == old.ID || kv.Lease == 0 {
			t.Fatalf("%s is on lease %x", k, kv.Lease)
		}
	}
}

func TestStore_WipedStore(t *testing.T) {
	t.Parallel()
	for _, burn := range []int{0, 60} {
		t.Run(strconv.Itoa(burn), func(t *testing.T) {
			t.Parallel()
			f := newStore(t, true, storeConfig(), nil)
			for i := range 20 {
				f.set(fmt.Sprintf("our%d", i), "1")
				f.wantIdle(t)
			}
			f.Proxy.Part()
			f.Wipe()
			f.Burn(f.direct, burn)
			f.Proxy.Rejoin()
			kvstoretest.WantStored(t, f.direct, kvstoretest.Rows(f.table))
		})
	}
}

func TestStore_Overwritten(t *testing.T) {
	t.Parallel()
	f := newStore(t, false, storeConfig(), nil)
	f.set("our1", "1")
	f.wantIdle(t)
	f.Put(f.direct, kvstoretest.Prefix+"our1", "theirs")
	kvstoretest.Eventually(t, func() string {
		if o, _ := f.store.Outcome("our1"); !errors.Is(o.Err, kvstore.ErrOverwritten) {
			return fmt.Sprintf("outcome is %+v", o)
		}
		return ""
	})
	// Deleting our row leaves theirs; without ours theirs is none of our business.
	f.table.Delete(local, 0, "our1")
	f.wantIdle(t)
	kvstoretest.WantStored(t, f.direct, map[string]string{"our1": "theirs"})
	f.set("our1", "2")
	kvstoretest.WantStored(t, f.direct, map[string]string{"our1": "2"})
	f.wantIdle(t)
	f.Put(f.direct, kvstoretest.Prefix+"our1", "theirs")
	f.Delete(f.direct, kvstoretest.Prefix+"our1")
	kvstoretest.WantStored(t, f.direct, map[string]string{"our1": "2"})
	f.wantIdle(t)
}

func TestStore_Enforce(t *testing.T) {
	t.Parallel()
	cfg := storeConfig()
	cfg.Enforce = true
	f := newStore(t, false, cfg, nil)
	f.set("our1", "1")
	f.wantIdle(t)
	f.Put(f.direct, kvstoretest.Prefix+"our1", "theirs")
	kvstoretest.WantStored(t, f.direct, map[string]string{"our1": "1"})
	f.wantIdle(t)
}

func TestStore_RowsThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	f := newStore(t, false, storeConfig(), nil)
	f.set("our1", "unwritable")
	f.set("our2", strings.Repeat("x", 2_000_000))
	f.set("our3", "1")
	kvstoretest.WantStored(t, f.direct, map[string]string{"our3": "1"})
	for k, want := range map[string]string{"our1": "cannot be written", "our2": "request is too large"} {
		kvstoretest.Eventually(t, func() string {
			o, _ := f.store.Outcome(k)
			if o.Err == nil || !strings.Contains(o.Err.Error(), want) {
				return fmt.Sprintf("%s: %+v", k, o)
			}
			return ""
		})
	}
	f.set("our1", "1")
	f.set("our2", "1")
	kvstoretest.WantStored(t, f.direct, map[string]string{"our1": "1", "our2": "1", "our3": "1"})
	f.wantIdle(t)
	// A row that cannot be written any more keeps what it was.
	f.set("our1", "unwritable")
	kvstoretest.Eventually(t, func() string {
		if f.store.Status().Failed != 1 {
			return "not failed"
		}
		return ""
	})
	kvstoretest.WantStored(t, f.direct, map[string]string{"our1": "1", "our2": "1", "our3": "1"})
}

// Each row "our<n>" with the value "a,b" has companions a and b.
func companions() kvstore.Companion[string, string] {
	codec := kvstoretest.Codec()
	codec.Prefix = "weft/companion/"
	return kvstore.NewCompanion(codec, func(k, v string) map[string]string {
		out := map[string]string{}
		for a := range strings.SplitSeq(v, ",") {
			out[a] = k
		}
		return out
	}, func(_, v string) bool { return strings.HasPrefix(v, "our") }, nil)
}

func companionRows(t *testing.T, c *kvstore.Client) map[string]string {
	t.Helper()
	l, err := c.List(t.Context(), "weft/companion/", kvstore.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, kv := range l.KVs {
		out[strings.TrimPrefix(kv.Key, "weft/companion/")] = string(kv.Value)
	}
	return out
}

func TestStore_Companions(t *testing.T) {
	t.Parallel()
	cfg := storeConfig()
	cfg.Companions = append(cfg.Companions, companions())
	f := newStore(t, true, cfg, func(f *storeFixture) {
		f.Put(f.direct, "weft/companion/old", "our9")
		f.Put(f.direct, "weft/companion/foreign", "x")
	})
	f.table.MarkSynced(local)
	want := func(want map[string]string) {
		t.Helper()
		want["foreign"] = "x"
		kvstoretest.Eventually(t, func() string {
			if got := companionRows(t, f.direct); !maps.Equal(got, want) {
				return fmt.Sprintf("got %v, want %v", got, want)
			}
			return ""
		})
		f.wantIdle(t)
	}
	f.set("our1", "a,b")
	want(map[string]string{"a": "our1", "b": "our1"})
	rows, err := f.direct.List(t.Context(), "weft/", kvstore.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	revs := map[int64]int{}
	for _, kv := range rows.KVs {
		revs[kv.ModRevision]++
	}
	if revs[rows.KVs[0].ModRevision] != 3 {
		t.Fatalf("a row and its companions were written at revisions %v", revs)
	}
	f.set("our1", "b,c")
	want(map[string]string{"b": "our1", "c": "our1"})
	// An address moves from one row to another, in both orders.
	f.set("our1", "b")
	f.set("our2", "c")
	want(map[string]string{"b": "our1", "c": "our2"})
	f.set("our3", "b")
	f.table.Delete(local, 0, "our1")
	want(map[string]string{"b": "our3", "c": "our2"})
	f.Delete(f.direct, "weft/companion/b")
	want(map[string]string{"b": "our3", "c": "our2"})
}

// Many rows, in several transactions at the same time, whose addresses go from one to the other.
func TestStore_ManyRowsAtOnce(t *testing.T) {
	t.Parallel()
	cfg := storeConfig()
	cfg.MaxOps = 7 // three rows with two addresses do not fit
	cfg.Companions = append(cfg.Companions, companions())
	f := newStore(t, true, cfg, nil)
	f.table.MarkSynced(local)
	const rows = 200
	for shift := range 5 {
		want := map[string]string{}
		f.table.Update(func(w *state.Writer[string, string]) {
			for i := range rows {
				key, from := fmt.Sprintf("our%d", i), fmt.Sprintf("a%d", (i+shift)%rows)
				if i%5 == shift {
					w.Delete(local, 0, key)
					continue
				}
				w.Put(local, 0, key, from+","+fmt.Sprintf("b%d", i))
				want[from], want[fmt.Sprintf("b%d", i)] = key, key
			}
		})
		kvstoretest.Eventually(t, func() string { return cmp.Diff(want, companionRows(t, f.direct)) })
		f.wantIdle(t)
	}
}

func TestStore_FeedsOnWatch(t *testing.T) {
	t.Parallel()
	srv := plain(t)
	c := srv.Client()
	srv.Put(c, kvstoretest.Prefix+"our9", "1")
	mirror, table := kvstoretest.Table(), kvstoretest.Table()
	w := kvstore.NewWatch(c, kvstoretest.Codec(), mirror, kvstoretest.WatchConfig(), kvstoretest.Log(t))
	cfg := storeConfig()
	cfg.Feed = w
	s := kvstore.NewStore(c, nil, kvstoretest.Codec(), table, cfg, kvstoretest.Log(t))
	kvstoretest.Go(t, s.Run)
	kvstoretest.Go(t, w.Run)
	table.Put(local, 0, "our1", "1")
	table.MarkSynced(local)
	kvstoretest.WantRows(t, mirror, map[string]string{"our1": "1"})
	srv.Delete(c, kvstoretest.Prefix+"our1")
	kvstoretest.Eventually(t, func() string {
		if s.Status().Repaired == 0 {
			return "not repaired"
		}
		return ""
	})
	kvstoretest.WantRows(t, mirror, map[string]string{"our1": "1"})
}

func TestStore_RandomFaults(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	f := newStore(t, true, storeConfig(), nil)
	f.table.MarkSynced(local)
	for round := range 16 {
		for range r.IntN(30) {
			if k := fmt.Sprintf("our%d", r.IntN(30)); r.IntN(3) == 0 {
				f.table.Delete(local, 0, k)
			} else {
				f.set(k, strconv.Itoa(r.IntN(5)))
			}
		}
		switch r.IntN(8) {
		case 0:
			f.Proxy.Part()
		case 1:
			f.Proxy.Rejoin()
		case 2:
			f.Proxy.Cut()
		case 3:
			f.Compact(f.direct)
		case 4:
			f.Delete(f.direct, fmt.Sprintf("%sour%d", kvstoretest.Prefix, r.IntN(30)))
		case 5:
			if l, _ := f.sess.Current(); l.Generation != 0 {
				_, _ = f.direct.Etcd().Revoke(t.Context(), l.ID)
			}
		case 6, 7:
			if round%4 == 0 {
				f.Wipe()
			}
		}
	}
	f.Proxy.Rejoin()
	kvstoretest.WantStored(t, f.direct, kvstoretest.Rows(f.table))
	f.wantIdle(t)
}
