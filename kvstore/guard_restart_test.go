// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// checkpoint is what stands in the store, as somebody would keep it over a restart.
func (g *guarded) checkpoint(t *testing.T) []kvstore.KV {
	t.Helper()
	l, err := g.direct.List(t.Context(), kvstoretest.Prefix, kvstore.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return l.KVs
}

// TestGuard_Restart: the lineage on disk outlives the process.
func TestGuard_Restart(t *testing.T) {
	t.Parallel()
	cfg := guardConfig()
	cfg.Brief = 300 * time.Millisecond
	cfg.File = filepath.Join(t.TempDir(), "lineage")
	g := newUnwatched(t, 2, 20)
	stop := g.start(t, cfg, nil)
	g.wantSynced(t, true)
	rows := g.checkpoint(t)
	restore := func() {
		if n := g.watch.Restore(slices.Values(rows), 1, time.Now()); n != 40 || g.table.Synced() || g.table.Len() != 0 {
			t.Fatalf("%d rows restored, %d in the table, synced %v", n, g.table.Len(), g.table.Synced())
		}
	}
	stop()

	g.Delete(g.direct, rows[0].Key)
	stop = g.start(t, cfg, restore)
	g.wantSynced(t, true)
	g.wantEqual(t) // the same lineage: what is absent was deleted
	stop()

	g.Wipe()
	g.Burn(g.direct, 200)
	g.revive(t, 2)
	g.start(t, cfg, restore)
	g.wantHeld(t, 40)
	g.wantSynced(t, false)
	g.publish("n0", 20)
	g.publish("n1", 10)
	g.confirm(t, "n1", 2)
	g.wantSynced(t, true)
	g.wantEqual(t)
}

// TestGuard_RestartInHold: what is held is held by the next process too, for the same reason and since
// the same time, and what was deleted meanwhile does not come back.
func TestGuard_RestartInHold(t *testing.T) {
	t.Parallel()
	wiped := func(t *testing.T, g *guarded) {
		g.Wipe()
		g.wantHeld(t, 40)
		g.revive(t, 2)
		g.wantEpoch(t, 2)
	}
	emptied := func(_ *testing.T, g *guarded) {
		g.Commit(g.direct, clientv3.OpDelete(kvstoretest.Prefix, clientv3.WithPrefix()))
	}
	for _, tt := range []struct {
		name  string
		loss  func(*testing.T, *guarded)
		why   kvstore.Why
		crash bool // the process does not end, it is gone
		table bool // the store was silent, so the rows were put into the table
	}{
		{"wiped", wiped, kvstore.WhyLineage, false, false},
		{"wiped-and-crashed", wiped, kvstore.WhyLineage, true, false},
		{"wiped-and-silent", wiped, kvstore.WhyLineage, true, true},
		{"emptied-by-hand", emptied, kvstore.WhySpan, false, false},
		{"emptied-by-hand-and-crashed", emptied, kvstore.WhySpan, true, false},
		{"emptied-by-hand-and-silent", emptied, kvstore.WhySpan, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := guardConfig()
			cfg.File = filepath.Join(t.TempDir(), "before", "lineage")
			g := newUnwatched(t, 2, 20)
			stop := g.start(t, cfg, nil)
			g.wantSynced(t, true)
			rows := g.checkpoint(t)
			kvstoretest.Eventually(t, func() string {
				if _, err := os.Stat(cfg.File); err != nil {
					return err.Error()
				}
				return ""
			})

			tt.loss(t, g)
			g.wantHeld(t, 40)
			// One owner is back, and deletes again what was held for it.
			g.publish("n0", 20)
			g.wantHeld(t, 20)
			g.Delete(g.direct, kvstoretest.Prefix+"n0-000003")
			want := kvstoretest.Rows(g.table)
			delete(want, "n0-000003")
			kvstoretest.WantRows(t, g.table, want)
			before := g.guard.Status().Hold
			since := g.guard.Held(1)[0].Since
			if tt.crash {
				wantFile(t, cfg.File, 20)
				wantLineage(t, cfg.File, g.guard.Status().Epoch)
				after := filepath.Join(t.TempDir(), "lineage")
				for _, name := range []string{"", ".held"} {
					b, err := os.ReadFile(cfg.File + name)
					if err == nil {
						err = os.WriteFile(after+name, b, 0o600)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				cfg.File = after
			}
			stop()

			g.start(t, cfg, func() {
				g.watch.Restore(slices.Values(rows), 1, time.Now())
				for _, kv := range rows {
					if tt.table {
						g.table.Put(kvstoretest.Source, kv.ModRevision, strings.TrimPrefix(kv.Key, kvstoretest.Prefix), string(kv.Value))
					}
				}
			})
			g.wantHeld(t, 20)
			g.wantSynced(t, false)
			kvstoretest.WantRows(t, g.table, want)
			now := g.guard.Status().Hold
			if !now.Since.Equal(before.Since) || now.Reason != before.Reason || now.Since.IsZero() {
				t.Errorf("held since %s: %s; want since %s: %s", now.Since, now.Reason, before.Since, before.Reason)
			}
			for _, r := range g.guard.Held(100) {
				if r.Why != tt.why || r.Owner != "n1" || r.Since.Sub(since).Abs() > time.Second {
					t.Fatalf("held row is %+v, want since %s", r, since)
				}
			}
			g.publish("n1", 5)
			g.confirm(t, "n1", 2-b2i(tt.why == kvstore.WhySpan))
			g.wantSynced(t, true)
			g.wantEqual(t)
			wantFile(t, cfg.File, 0)
		})
	}
}

// TestGuard_RestartWithoutRows: a process that keeps no values knows nevertheless that what is in the store
// is not all, until the rows are back, or their owners or somebody else say that they are gone.
func TestGuard_RestartWithoutRows(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"words", "rows", "decision", "second-loss"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			cfg := guardConfig()
			cfg.Brief = 300 * time.Millisecond
			cfg.File = filepath.Join(t.TempDir(), "lineage")
			g := newUnwatched(t, 2, 5)
			stop := g.start(t, cfg, nil)
			g.wantSynced(t, true)
			g.Wipe()
			g.wantHeld(t, 10)
			g.revive(t, 2)
			g.publish("n0", 3)
			g.wantHeld(t, 7)
			g.wantEpoch(t, 2)
			stop()
			if by == "second-loss" {
				g.Wipe()
			}
			g.start(t, cfg, nil)
			n := byte(2)
			if by == "second-loss" {
				g.publish("n0", 3)
				g.revive(t, 3)
				n = 3
				g.wantEpoch(t, 3)
			}
			g.wantHeld(t, 7)
			g.wantSynced(t, false)
			switch by {
			case "words", "second-loss":
				g.confirm(t, "n0", n)
				g.wantHeld(t, 5)
				g.wantSynced(t, false)
				g.confirm(t, "n1", n)
			case "rows":
				g.publish("n0", 5)
				g.wantHeld(t, 5)
				g.publish("n1", 5)
			case "decision":
				g.adopt(t, 7)
			}
			g.wantSynced(t, true)
			g.wantEqual(t)
			wantFile(t, cfg.File, 0)
		})
	}
}

// TestGuard_DamagedFile: that a file could not be read is told for as long as the process runs, though it
// is replaced soon.
func TestGuard_DamagedFile(t *testing.T) {
	t.Parallel()
	cfg := guardConfig()
	cfg.File = filepath.Join(t.TempDir(), "lineage")
	if err := os.WriteFile(cfg.File, []byte("weft-lineage"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := newUnwatched(t, 0, 0)
	stop := g.start(t, cfg, nil)
	g.wantSynced(t, true)
	wantLineage(t, cfg.File, epoch(1))
	stop() // saves once more
	if err := g.guard.Status().FileError; err == nil || !strings.Contains(err.Error(), cfg.File) {
		t.Errorf("got %v, want that %s was damaged", err, cfg.File)
	}
	g.start(t, cfg, nil)
	g.wantSynced(t, true)
	if err := g.guard.Status().FileError; err != nil {
		t.Errorf("the file that replaced it: %v", err)
	}
}

func b2i(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// wantFile waits until the file of held keys has so many.
func wantFile(t *testing.T, lineage string, keys int) {
	t.Helper()
	wantText(t, lineage+".held", func(text string) string {
		if got := strings.Count(text, kvstoretest.Prefix); got != keys {
			return fmt.Sprintf("%d keys are in the file, want %d", got, keys)
		}
		return ""
	})
}

// wantLineage waits for the lineage on disk to be that of an epoch: it is written after what is held.
func wantLineage(t *testing.T, lineage, epoch string) {
	t.Helper()
	wantText(t, lineage, func(text string) string {
		if !strings.Contains(text, epoch) {
			return fmt.Sprintf("the file is not of epoch %s", epoch)
		}
		return ""
	})
}

// wantText waits until a file, empty where there is none, is as wanted.
func wantText(t *testing.T, file string, ok func(text string) string) {
	t.Helper()
	kvstoretest.Eventually(t, func() string {
		b, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			return err.Error()
		}
		return ok(string(b))
	})
}
