// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"bytes"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// copied is a watch of a prefix with a table of its bytes.
type copied struct {
	rows  *state.Table[string, string]
	bytes *state.Table[string, []byte]
	guard *kvstore.Guard
	watch *kvstore.Watch[string, string]
	stop  func()
}

// lower is the codec of the tests whose values mean the same in capitals: two texts, one row.
func lower() schema.Codec[string, string] {
	c := kvstoretest.Codec()
	decode := c.Decode
	c.Decode = func(k string, b []byte) (string, error) { return decode(k, bytes.ToLower(b)) }
	return c
}

func newCopied(t *testing.T, c *kvstore.Client) *copied {
	t.Helper()
	f := &copied{rows: kvstoretest.Table(), bytes: state.NewTable[string]("bytes", bytes.Equal)}
	f.guard = kvstore.NewGuard(c, kvstore.GuardConfig{
		Cluster: "far", Limit: time.Hour, Brief: time.Hour, Follow: kvstoretest.WatchConfig(),
	}, kvstoretest.Log(t))
	f.run(t, c)
	return f
}

func (f *copied) run(t *testing.T, c *kvstore.Client) {
	t.Helper()
	cfg := kvstoretest.WatchConfig()
	cfg.Guard = f.guard
	f.watch = kvstore.NewWatch(c, lower(), f.rows, cfg, kvstoretest.Log(t))
	f.watch.Copy(f.bytes)
	guard, watch := kvstoretest.Go(t, f.guard.Run), kvstoretest.Go(t, f.watch.Run)
	f.stop = func() { watch(); guard() }
}

func (f *copied) want(t *testing.T, synced bool, want map[string]string) {
	t.Helper()
	kvstoretest.Eventually(t, func() string {
		got := map[string]string{}
		for r := range f.bytes.All() {
			got[r.Key] = string(r.Value)
		}
		if !maps.Equal(got, want) || f.bytes.SyncedBy(kvstoretest.Source) != synced {
			return "copies, synced " + map[bool]string{true: "yes", false: "no"}[!synced] + " (-want +got):\n" + cmp.Diff(want, got)
		}
		return ""
	})
}

// The bytes are those of the store, also where another text means the same row, and of a value that
// was refused those of the one before.
func TestWatch_CopiesBytes(t *testing.T) {
	t.Parallel()
	s := plain(t)
	c := s.Client()
	s.Put(c, kvstoretest.Prefix+"a", "One")
	s.Put(c, kvstoretest.Prefix+"b", "bad from the start")
	f := newCopied(t, c)
	f.want(t, true, map[string]string{"a": "One"})
	s.Put(c, kvstoretest.Prefix+"a", "ONE")
	s.Put(c, kvstoretest.Prefix+"b", "Two")
	f.want(t, true, map[string]string{"a": "ONE", "b": "Two"})
	s.Put(c, kvstoretest.Prefix+"b", "bad now")
	s.Put(c, kvstoretest.Prefix+"c", "Three")
	f.want(t, true, map[string]string{"a": "ONE", "b": "Two", "c": "Three"})

	// Another watch of the same rows goes on with them; what went meanwhile goes.
	f.stop()
	s.Delete(c, kvstoretest.Prefix+"a")
	f.run(t, c)
	f.want(t, true, map[string]string{"b": "Two", "c": "Three"})

	// A row that its reader takes back is no copy any more.
	f.rows.Delete(kvstoretest.Source, 0, "c")
	f.watch.TakenBack("c", "b") // b stands: somebody was faster
	f.want(t, true, map[string]string{"b": "Two"})
}

// In hold nothing changes, not even what the store has anew; the end of the hold brings everything.
func TestWatch_CopiesStandStillInHold(t *testing.T) {
	t.Parallel()
	s := plain(t)
	c := s.Client()
	for _, k := range []string{"a", "b"} {
		s.Put(c, kvstoretest.Prefix+k, "Old")
	}
	f := newCopied(t, c)
	f.want(t, true, map[string]string{"a": "Old", "b": "Old"})
	s.Wipe()
	s.Put(c, kvstoretest.Prefix+"b", "New")
	s.Put(c, kvstoretest.Prefix+"c", "New")
	kvstoretest.WantRows(t, f.rows, map[string]string{"a": "old", "b": "new", "c": "new"})
	f.want(t, false, map[string]string{"a": "Old", "b": "Old"})
	if _, _, err := f.guard.Adopt(t.Context(), "a test"); err != nil {
		t.Fatal(err)
	}
	f.want(t, true, map[string]string{"b": "New", "c": "New"})
}

// Rows of an earlier process that are held have their bytes from it.
func TestWatch_CopiesOfAnEarlierProcess(t *testing.T) {
	t.Parallel()
	s := plain(t)
	c := s.Client()
	s.Put(c, kvstoretest.Prefix+"b", "New")
	f := &copied{rows: kvstoretest.Table(), bytes: state.NewTable[string]("bytes", bytes.Equal)}
	f.guard = kvstore.NewGuard(c, kvstore.GuardConfig{Cluster: "far", Limit: time.Hour, Follow: kvstoretest.WatchConfig()}, kvstoretest.Log(t))
	cfg := kvstoretest.WatchConfig()
	cfg.Guard = f.guard
	f.watch = kvstore.NewWatch(c, lower(), f.rows, cfg, kvstoretest.Log(t))
	f.watch.Copy(f.bytes)
	f.watch.Restore(func(yield func(kvstore.KV) bool) {
		yield(kvstore.KV{Key: kvstoretest.Prefix + "a", Value: []byte("Kept"), ModRevision: 1})
	}, 1, time.Now())
	kvstoretest.Go(t, f.guard.Run)
	kvstoretest.Go(t, f.watch.Run)
	kvstoretest.WantRows(t, f.rows, map[string]string{"a": "kept", "b": "new"})
	if _, _, err := f.guard.Adopt(t.Context(), "a test"); err != nil {
		t.Fatal(err)
	}
	f.want(t, true, map[string]string{"b": "New"})
}
