// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/weft-net/weft/internal/loopback"
	"github.com/weft-net/weft/kvstore/embedded"
)

// newJudged is a client of a store that nobody follows.
func newJudged(t *testing.T) *Client {
	t.Helper()
	s, err := embedded.Start(t.Context(), embedded.Config{
		Dir: filepath.Join(t.TempDir(), "etcd"), ClientURL: "http://" + loopback.Free(t), UnsafeNoFsync: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	c, err := New(Config{Endpoints: []string{s.Endpoint()}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestGuard_ListJudgedLate: in a store that is empty yet, a list that was made before another one's and
// is judged after it is of the same store. One that is behind what was seen is not.
func TestGuard_ListJudgedLate(t *testing.T) {
	t.Parallel()
	c := newJudged(t)
	var id uint64
	var newest int64
	for range 3 {
		resp, err := c.etcd.Put(t.Context(), "elsewhere", "")
		if err != nil {
			t.Fatal(err)
		}
		id, newest = resp.Header.ClusterId, resp.Header.Revision
	}
	for _, tt := range []struct {
		name  string
		known int64
		want  Continuity
	}{
		{"judged late", newest, ContinuityFirst},
		{"behind", newest + 1, ContinuityBroken},
	} {
		g := NewGuard(c, GuardConfig{}, slog.New(slog.DiscardHandler))
		g.lineage, g.generation, g.loaded = lineage{clusterID: id, revision: tt.known}, generationOnDisk+1, true
		got, _, err := g.judge(t.Context(), &follower{c: c}, lineage{clusterID: id, revision: newest - 1}, false)
		if err != nil || got != tt.want {
			t.Errorf("%s: %s (%v), want %s", tt.name, got, err, tt.want)
		}
	}
}

// TestGuard_WitnessWentUnseen: the last put that an earlier process saw was deleted while none ran. What
// lists its prefix goes on from there and hears of no deletion; the store is the same all the same, for
// those who list later. One that has another put at that revision is not.
func TestGuard_WitnessWentUnseen(t *testing.T) {
	t.Parallel()
	c := newJudged(t)
	put := func(key string) (lineage, int64) {
		t.Helper()
		resp, err := c.etcd.Put(t.Context(), key, "value")
		if err != nil {
			t.Fatal(err)
		}
		rev := resp.Header.Revision
		return lineage{clusterID: resp.Header.ClusterId, revision: rev, witness: witness{key: key, mod: rev, hash: hashOf([]byte("value"), 0), at: rev}}, rev
	}
	stays, _ := put("ips/stays")
	known, _ := put("ips/goes")
	resp, err := c.etcd.Delete(t.Context(), "ips/goes")
	if err != nil {
		t.Fatal(err)
	}
	newest := resp.Header.Revision
	stays.revision, stays.witness.at = newest, newest
	forged := known
	forged.witness.hash++
	for _, tt := range []struct {
		name     string
		known    lineage
		ips, all Continuity
	}{
		{"same store", known, ContinuityFirst, ContinuityFirst},
		{"another put", forged, ContinuityBroken, ContinuityFirst},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := NewGuard(c, GuardConfig{}, slog.New(slog.DiscardHandler))
			g.lineage, g.generation, g.loaded = tt.known, generationOnDisk, true
			judge := func(f *follower, next lineage, want Continuity) {
				t.Helper()
				got, generation, err := g.judge(t.Context(), f, next, false)
				if err != nil || got != want {
					t.Errorf("%s: %s (%v), want %s", f.cfg.prefix, got, err, want)
				}
				f.generation = generation
			}
			ips := &follower{c: c, cfg: followConfig{prefix: "ips/"}}
			judge(ips, stays, tt.ips)
			g.saw(ips, nil, newest, newest) // it asks how far the store is
			judge(&follower{c: c, cfg: followConfig{prefix: "nodes/"}}, lineage{clusterID: known.clusterID, revision: newest}, tt.all)
		})
	}
}

// TestGuard_OneTransaction: several keys were put at one revision, and a list shows another one of them
// than the events did. What the guard goes by is one that can be asked for as late as possible.
func TestGuard_OneTransaction(t *testing.T) {
	t.Parallel()
	at := func(key string, rev int64, deleted bool) witness {
		return witness{key: key, mod: 10, at: rev, deleted: deleted}
	}
	for _, tt := range []struct {
		name                string
		known, listed, want witness
	}{
		{"listed later", at("ips/b", 12, false), at("ips/a", 20, false), at("ips/a", 20, false)},
		{"listed before", at("ips/b", 12, false), at("ips/a", 11, false), at("ips/b", 12, false)},
		{"the known one went", at("ips/b", 12, true), at("ips/a", 11, false), at("ips/a", 11, false)},
		{"the same one", at("ips/b", 12, false), at("ips/b", 20, false), at("ips/b", 20, false)},
		{"the same one, which went then", at("ips/b", 30, true), at("ips/b", 20, false), at("ips/b", 30, true)},
		{"none", witness{}, witness{}, witness{}},
	} {
		g := NewGuard(nil, GuardConfig{}, slog.New(slog.DiscardHandler))
		g.lineage.witness = tt.known
		g.extendLocked(&follower{cfg: followConfig{prefix: "ips/"}}, lineage{revision: tt.listed.at, witness: tt.listed})
		if g.lineage.witness != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, g.lineage.witness, tt.want)
		}
	}
}

// TestGuard_NotInStep: two followers of one key tell of what happened to it, one later than the other.
// What the guard believes of it, up to which revision, is true at every step.
func TestGuard_NotInStep(t *testing.T) {
	t.Parallel()
	put := func(key string, rev int64) event { return event{KV: KV{Key: key, ModRevision: rev}} }
	gone := func(key string, rev int64) event {
		return event{KV: KV{Key: key, ModRevision: rev}, Deleted: true}
	}
	g := NewGuard(nil, GuardConfig{}, slog.New(slog.DiscardHandler))
	ahead, behind := &follower{cfg: followConfig{prefix: "ips/"}}, &follower{cfg: followConfig{prefix: "ips/"}}
	for _, tt := range []struct {
		name            string
		who             *follower
		evs             []event
		after, revision int64
		deleted         bool
		mod, at         int64
		gone            tombstone
	}{
		{"put", behind, []event{put("ips/a", 10)}, 9, 10, false, 10, 10, tombstone{}},
		{"one that listed after its end", ahead, nil, 25, 30, false, 10, 10, tombstone{}},
		{"no change since", behind, nil, 10, 15, false, 10, 15, tombstone{}},
		{"its end", behind, []event{gone("ips/a", 20)}, 15, 20, true, 10, 20, tombstone{"ips/a", 20}},
		{"put again", ahead, []event{put("ips/a", 40)}, 30, 45, false, 40, 45, tombstone{"ips/a", 20}},
		{"an earlier end", behind, []event{gone("ips/a", 35), put("ips/a", 40)}, 20, 45, false, 40, 45, tombstone{"ips/a", 20}},
		{"another's end", ahead, []event{gone("ips/b", 50)}, 45, 50, false, 40, 50, tombstone{"ips/b", 50}},
	} {
		g.saw(tt.who, tt.evs, tt.after, tt.revision)
		want := witness{key: "ips/a", mod: tt.mod, hash: hashOf(nil, 0), deleted: tt.deleted, at: tt.at}
		if l := g.lineage; l.witness != want || l.gone != tt.gone {
			t.Errorf("%s: %+v and %+v, want %+v and %+v", tt.name, l.witness, l.gone, want, tt.gone)
		}
	}
}
