// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstoretest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/state"
)

// fixture is a server, a client beside the proxy that writes, and a watch through the proxy.
type fixture struct {
	*Server
	direct *kvstore.Client
	table  *state.Table[string, string]
	watch  *kvstore.Watch[string, string]
}

func newFixture(t *testing.T, start func(testing.TB) *Server, before func(f *fixture)) *fixture {
	t.Helper()
	return newFixtureOf(t, start, WatchConfig(), before)
}

func newFixtureOf(t *testing.T, start func(testing.TB) *Server, cfg kvstore.WatchConfig, before func(f *fixture)) *fixture {
	t.Helper()
	f := &fixture{Server: start(t), table: Table()}
	f.direct = f.Client()
	if before != nil {
		before(f)
	}
	c := NewClient(t, f.ProxyConfig())
	if f.guarded {
		cfg.Guard = kvstore.NewGuard(c, kvstore.GuardConfig{Owners: true, Follow: WatchConfig()}, Log(t))
		Go(t, cfg.Guard.Run)
	}
	f.watch = Watch(t, c, f.table, cfg)
	f.wantSynced(t)
	return f
}

func (f *fixture) wantSynced(t *testing.T) {
	t.Helper()
	Eventually(t, func() string {
		if st := f.watch.Status(); !st.Synced || !st.Connected {
			return fmt.Sprintf("not synced and connected: %+v", st)
		}
		return ""
	})
}

// wantEqual waits until the table is what the store is.
func (f *fixture) wantEqual(t *testing.T) {
	t.Helper()
	WantRows(t, f.table, Stored(t, f.direct))
}

// wantAway waits until the watch knows that it is disconnected.
func (f *fixture) wantAway(t *testing.T) {
	t.Helper()
	Eventually(t, func() string {
		if f.watch.Status().Connected {
			return "still connected"
		}
		return ""
	})
}

// away parts the watch from the server while fn runs.
func (f *fixture) away(t *testing.T, fn func()) {
	t.Helper()
	f.Proxy.Part()
	f.wantAway(t)
	fn()
	f.Proxy.Rejoin()
	f.wantSynced(t)
}

// wantHow checks how the watch came back.
func (f *fixture) wantHow(t *testing.T, lists, resumes uint64, c kvstore.Continuity) {
	t.Helper()
	Eventually(t, func() string {
		st := f.watch.Status()
		if st.Lists != lists || st.Resumes != resumes || st.Continuity != c {
			return fmt.Sprintf("got %d lists, %d resumes, continuity %s; want %d, %d, %s; last error %v",
				st.Lists, st.Resumes, st.Continuity, lists, resumes, c, st.LastError)
		}
		return ""
	})
}

// watchTest is one situation of the suite.
type watchTest struct {
	name    string
	run     func(*testing.T, func(testing.TB) *Server)
	guarded bool // also for a watch with a guard
}

func watchTests() []watchTest {
	return []watchTest{
		{"follows", watchFollows, true},
		{"empty-prefix", watchEmpty, true},
		{"neighbour-prefix", watchNeighbour, false},
		{"ordered-over-cuts", watchOrdered, true},
		{"small-gap-resumes", watchSmallGap, true},
		{"large-gap-lists", watchLargeGap, true},
		{"restart-resumes", watchRestart, true},
		{"compacted-away-lists", watchCompacted, false},
		{"compaction-during-list", watchCompactedList, false},
		{"wiped-lower-revision", watchWipedLower, false},
		{"wiped-higher-revision", watchWipedHigher, false},
		{"another-store", watchAnotherStore, false},
		{"silent-server", watchSilent, true},
		{"bad-values", watchBadValues, true},
		{"bad-values-in-list", watchBadList, true},
		{"asked-for-a-list", watchAsked, true},
		{"two-spellings", watchSpelling, false},
		{"huge-values", watchHuge, false},
		{"random-faults", watchRandom, false},
	}
}

// RunGuardedWatch checks the same of a watch with a guard, in all situations in which the store is
// the one that was known: nothing may be held there.
func RunGuardedWatch(t *testing.T, start func(testing.TB) *Server) {
	runWatch(t, start, func(tt watchTest) bool { return tt.guarded })
}

// RunWatch checks that a watch of the server that start returns is never wrong for long. The
// suite belongs to whatever serves a weft store, not only to etcd.
func RunWatch(t *testing.T, start func(testing.TB) *Server) {
	runWatch(t, start, func(watchTest) bool { return true })
}

func runWatch(t *testing.T, start func(testing.TB) *Server, which func(watchTest) bool) {
	for _, tt := range watchTests() {
		if !which(tt) {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.run(t, start)
		})
	}
}

func watchFollows(t *testing.T, start func(testing.TB) *Server) {
	f := newFixture(t, start, func(f *fixture) { f.Fill(f.direct, Prefix, 120, "x") })
	f.wantEqual(t)
	rev := f.Put(f.direct, Prefix+"new", "1")
	f.Delete(f.direct, Prefix+"000007")
	f.wantEqual(t)
	row, _ := f.table.Get("new")
	if row.Origin != rev || row.Source != Source {
		t.Fatalf("row has origin %d and source %s, want %d and %s", row.Origin, row.Source, rev, Source)
	}
	f.wantHow(t, 1, 0, kvstore.ContinuityFirst)

	// Confirmations go on without any change, and with changes elsewhere the revision moves.
	before := f.watch.Status()
	f.Burn(f.direct, 5)
	Eventually(t, func() string {
		now := f.watch.Status()
		if !now.LastConfirmed.After(before.LastConfirmed) || now.Revision < before.Revision+5 {
			return "not confirmed"
		}
		return ""
	})
	if src := f.table.Sources(); len(src) != 1 || src[0].Confirmed.Before(before.LastConfirmed) {
		t.Fatalf("the table's source is not confirmed: %+v", src)
	}
}

func watchEmpty(t *testing.T, start func(testing.TB) *Server) {
	f := newFixture(t, start, nil)
	if !f.table.Synced() {
		t.Fatal("an empty prefix that was listed is not synced")
	}
	f.away(t, func() { f.Put(f.direct, Prefix+"a", "1") })
	f.wantEqual(t)
}

func watchNeighbour(t *testing.T, start func(testing.TB) *Server) {
	f := newFixture(t, start, func(f *fixture) { f.Put(f.direct, strings.TrimSuffix(Prefix, "/")+"0", "no") })
	f.Put(f.direct, strings.TrimSuffix(Prefix, "/")+"1", "no")
	f.Put(f.direct, Prefix+"a", "yes")
	WantRows(t, f.table, map[string]string{"a": "yes"})
}

// watchOrdered writes a before b, always, and reads b before a: b must never be ahead.
func watchOrdered(t *testing.T, start func(testing.TB) *Server) {
	f := newFixture(t, start, nil)
	number := func(k string) int {
		r, _ := f.table.Get(k)
		n, _ := strconv.Atoi(r.Value)
		return n
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for {
			b, a := number("b"), number("a")
			if b > a {
				done <- fmt.Errorf("b is at %d, a at %d", b, a)
				return
			}
			if ctx.Err() != nil {
				done <- nil
				return
			}
		}
	}()
	for i := range 300 {
		f.Put(f.direct, Prefix+"a", strconv.Itoa(i))
		f.Put(f.direct, Prefix+"b", strconv.Itoa(i))
		if i%60 == 30 {
			f.Proxy.Cut()
		}
	}
	f.wantEqual(t)
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func watchSmallGap(t *testing.T, start func(testing.TB) *Server) {
	f := newFixture(t, start, func(f *fixture) { f.Fill(f.direct, Prefix, 120, "x") })
	f.away(t, func() {
		f.Delete(f.direct, Prefix+"000003")
		f.Put(f.direct, Prefix+"000004", "y")
	})
	f.wantEqual(t)
	f.wantHow(t, 1, 1, kvstore.ContinuityProven)

	// The witness itself may be what was deleted.
	f.Put(f.direct, Prefix+"last", "1")
	f.Delete(f.direct, Prefix+"last")
	f.wantEqual(t)
	f.away(t, func() { f.Delete(f.direct, Prefix+"000005") })
	f.wantEqual(t)
	f.wantHow(t, 1, 2, kvstore.ContinuityProven)
}

func watchLargeGap(t *testing.T, start func(testing.TB) *Server) {
	f := newFixture(t, start, func(f *fixture) { f.Fill(f.direct, Prefix, 120, "x") })
	f.away(t, func() {
		f.Delete(f.direct, Prefix+"000003")
		f.Burn(f.direct, 120)
	})
	f.wantEqual(t)
	f.wantHow(t, 2, 0, kvstore.ContinuityProven)
}

func watchRestart(t *testing.T, start func(testing.TB) *Server) {
	f := newFixture(t, start, func(f *fixture) { f.Fill(f.direct, Prefix, 20, "x") })
	f.Kill()
	f.wantAway(t)
	if !f.table.Synced() || f.table.Len() != 20 {
		t.Fatal("a server that is down took rows or the synced mark away")
	}
	f.Restart()
	f.wantSynced(t)
	f.Delete(f.direct, Prefix+"000003")
	f.wantEqual(t)
	f.wantHow(t, 1, 1, kvstore.ContinuityProven)
}

func watchCompacted(t *testing.T, start func(testing.TB) *Server) {
	f := newFixture(t, start, func(f *fixture) { f.Fill(f.direct, Prefix, 20, "x") })
	f.Put(f.direct, Prefix+"witness", "1")
	f.wantEqual(t)
	f.away(t, func() {
		f.Delete(f.direct, Prefix+"000003")
		f.Compact(f.direct)
	})
	f.wantEqual(t)
	// The witness still stands as it was, so the history is the same although it is gone.
	f.wantHow(t, 2, 0, kvstore.ContinuityProven)
	f.away(t, func() {
		f.Put(f.direct, Prefix+"witness", "2")
		f.Compact(f.direct)
	})
	f.wantEqual(t)
	f.wantHow(t, 3, 0, kvstore.ContinuityUnproven)
}

func watchCompactedList(t *testing.T, start func(testing.TB) *Server) {
	s := start(t)
	direct := s.Client()
	s.Fill(direct, Prefix, 600, "x")
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			resp, err := direct.Etcd().Put(ctx, "burn", "x")
			if err == nil {
				_, err = direct.Etcd().Compact(ctx, resp.Header.Revision)
			}
			if err != nil && ctx.Err() == nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	cfg := WatchConfig()
	cfg.PageSize = 20
	table := Table()
	w := Watch(t, NewClient(t, s.ProxyConfig()), table, cfg)
	Eventually(t, func() string {
		if err := w.Status().LastError; err == nil || !strings.Contains(err.Error(), "compacted") {
			return "no list was hit yet"
		}
		return ""
	})
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want := Stored(t, direct)
	Eventually(t, func() string {
		if got := Rows(table); !maps.Equal(got, want) {
			return fmt.Sprintf("%d rows of %d: %+v", len(got), len(want), w.Status())
		}
		return ""
	})
}

func watchWipedLower(t *testing.T, start func(testing.TB) *Server) {
	f := newFixture(t, start, func(f *fixture) { f.Fill(f.direct, Prefix, 120, "x") })
	f.away(t, func() {
		f.Wipe()
		f.Put(f.direct, Prefix+"000003", "x")
	})
	WantRows(t, f.table, map[string]string{"000003": "x"})
	f.wantHow(t, 2, 0, kvstore.ContinuityBroken)
}

// watchWipedHigher is the case in which a stock watch goes on without an error and is wrong.
func watchWipedHigher(t *testing.T, start func(testing.TB) *Server) {
	f := newFixture(t, start, func(f *fixture) { f.Fill(f.direct, Prefix, 20, "x") })
	f.wantEqual(t)
	f.away(t, func() {
		f.Wipe()
		f.Burn(f.direct, 40)
		f.Put(f.direct, Prefix+"000003", "x")
	})
	WantRows(t, f.table, map[string]string{"000003": "x"})
	f.wantHow(t, 2, 0, kvstore.ContinuityBroken)
}

func watchAnotherStore(t *testing.T, start func(testing.TB) *Server) {
	f := newFixture(t, start, func(f *fixture) { f.Fill(f.direct, Prefix, 20, "x") })
	other := start(t)
	direct := other.Client()
	if f.watch.Status().ClusterID == 0 {
		t.Fatal("the cluster id is not known")
	}
	other.Put(direct, Prefix+"other", "1")
	other.Burn(direct, 40)
	f.away(t, func() { f.Proxy.Redirect(hostPort(other.Endpoint())) })
	WantRows(t, f.table, map[string]string{"other": "1"})
	f.wantHow(t, 2, 0, kvstore.ContinuityBroken)
}

func watchSilent(t *testing.T, start func(testing.TB) *Server) {
	cfg := WatchConfig()
	cfg.Silence = 400 * time.Millisecond
	f := newFixtureOf(t, start, cfg, func(f *fixture) { f.Fill(f.direct, Prefix, 20, "x") })
	f.Proxy.Freeze()
	f.wantAway(t)
	var silent *kvstore.EndpointError
	if err := f.watch.Status().LastError; !errors.As(err, &silent) || silent.Reason != kvstore.ReasonSilent {
		t.Fatalf("got error %v, want one that says silent", err)
	}
	if f.table.Len() != 20 || !f.table.Synced() {
		t.Fatal("silence took rows or the synced mark away")
	}
	f.Delete(f.direct, Prefix+"000003")
	f.Proxy.Thaw()
	f.wantSynced(t)
	f.wantEqual(t)
}

// watchRandom changes a model and the store alike, breaks what can be broken, and compares.
func watchRandom(t *testing.T, start func(testing.TB) *Server) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	f := newFixture(t, start, nil)
	model := map[string]string{}
	for round := range 12 {
		for range r.IntN(40) {
			var ops []clientv3.Op
			used := map[string]bool{}
			for range 1 + r.IntN(4) {
				k := fmt.Sprintf("k%d", r.IntN(30))
				if used[k] {
					continue // etcd refuses two writes of one key in a transaction
				}
				used[k] = true
				if r.IntN(3) == 0 {
					ops = append(ops, clientv3.OpDelete(Prefix+k))
					delete(model, k)
				} else {
					v := strconv.Itoa(r.IntN(5))
					ops = append(ops, clientv3.OpPut(Prefix+k, v))
					model[k] = v
				}
			}
			f.Commit(f.direct, ops...)
		}
		switch r.IntN(7) {
		case 0:
			f.Proxy.Part()
		case 1:
			f.Proxy.Rejoin()
		case 2:
			f.Proxy.Cut()
		case 3:
			f.Compact(f.direct)
		case 4:
			f.Burn(f.direct, 110)
		case 5:
			if round%4 == 0 {
				f.Kill()
				f.Restart()
			}
		case 6:
			if round%4 == 0 {
				f.Wipe()
				clear(model)
			}
		}
	}
	f.Proxy.Rejoin()
	if got := Stored(t, f.direct); !maps.Equal(got, model) {
		t.Fatalf("the store is not the model: %v, %v", got, model)
	}
	WantRows(t, f.table, model)
}

// hostPort is an endpoint without its scheme.
func hostPort(endpoint string) string {
	_, hp, _ := strings.Cut(endpoint, "://")
	return hp
}
