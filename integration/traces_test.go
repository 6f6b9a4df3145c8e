// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weft-net/weft/integration/history"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// TestTraces_TellWhatAWatchSaw records a store and the log of a watch of it while the store is restarted,
// rolled back and wiped: the two agree, and they do not if the watch had missed one change, been told one
// twice, or gone on over another store.
func TestTraces_TellWhatAWatchSaw(t *testing.T) {
	srv := kvstoretest.Start(t, kvstoretest.Options{})
	direct := srv.Client()
	rec := history.NewRecorder(nil)
	s := &truth{rec: rec, name: "east", dir: srv.Config().Dir, client: direct.Etcd()}
	ctx, stop := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { s.follow(ctx) })

	log, table := &kvstoretest.LogBuffer{}, kvstoretest.Table()
	logger := slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})).With("part", "watch")
	watch := kvstore.NewWatch(kvstoretest.NewClient(t, srv.ProxyConfig()), kvstoretest.Codec(), table, kvstoretest.WatchConfig(), logger)
	done.Go(func() { _ = watch.Run(ctx) })
	lives := 0
	step := func(what string, lost bool) {
		t.Helper()
		if lost {
			lives++
		}
		kvstoretest.Eventually(t, func() string { // what happens before is not judged
			if n, _ := s.reached(); n != lives {
				return fmt.Sprintf("life %d is followed, want %d", n, lives)
			}
			return ""
		})
		for i := range 3 {
			srv.Put(direct, kvstoretest.Prefix+fmt.Sprint(i), what)
		}
		srv.Delete(direct, kvstoretest.Prefix+"1")
		last := srv.Put(direct, kvstoretest.Prefix+"last", what)
		kvstoretest.Eventually(t, func() string {
			if n, revision := s.reached(); n != lives || revision < last {
				return fmt.Sprintf("the store is followed to revision %d of life %d, want %d of %d", revision, n, last, lives)
			}
			if got, ok := table.Get("last"); !ok || got.Value != what {
				return fmt.Sprintf("the watch has %+v", got)
			}
			return ""
		})
	}
	step("first", true)
	srv.Kill()
	srv.Restart()
	step("restarted", false)
	saved := filepath.Join(t.TempDir(), "saved")
	srv.Save(saved)
	step("saved", false)
	srv.RollBack(saved)
	step("rolled-back", true)
	srv.Wipe()
	step("wiped", true)
	stop()
	done.Wait()

	traces, err := history.Traces(strings.NewReader(log.String()), history.Traced{
		By: "n1", Store: "east", Life: func(_ string, at time.Time) string { return s.life(at) },
	})
	if err != nil {
		t.Fatal(err)
	}
	judge := func(traces []history.Record) []history.Violation {
		return history.Check(history.Merge(rec.Records(), traces), history.Limits{})
	}
	for _, v := range judge(traces) {
		t.Error(v)
	}
	at := slices.IndexFunc(traces, func(r history.Record) bool { return r.Kind == history.Event && r.Deleted })
	if at < 0 {
		t.Fatal("no change was seen as one")
	}
	broken := func(name string, want error, traces []history.Record) {
		t.Helper()
		if !slices.ContainsFunc(judge(traces), func(v history.Violation) bool { return errors.Is(v, want) }) {
			t.Errorf("%s is not noticed", name)
		}
	}
	broken("a change that is missed", history.ErrBrokeNoGap, slices.Delete(slices.Clone(traces), at, at+1))
	broken("a change that is told twice", history.ErrBrokeNoDuplicate, slices.Insert(slices.Clone(traces), at, traces[at]))
	stale := slices.Clone(traces)
	list := slices.IndexFunc(stale, func(r history.Record) bool { return r.Kind == history.Listed && r.Lineage == "2" })
	if list < 0 {
		t.Fatal("the store that was rolled back is not listed")
	}
	stale[list].Rows = nil
	broken("a list without rows", history.ErrBrokeNoStale, stale)
	// A watch that does not list what came back in place of its store.
	broken("another store", history.ErrBrokeNoGap, slices.DeleteFunc(slices.Clone(traces), func(r history.Record) bool {
		return r.Kind == history.Listed && r.Lineage != "1"
	}))
}
