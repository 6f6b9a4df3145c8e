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

// TestGuard_ListJudgedLate: in a store that is empty yet, a list that was made before another one's and
// is judged after it is of the same store. One that is behind what was seen is not.
func TestGuard_ListJudgedLate(t *testing.T) {
	t.Parallel()
	s, err := embedded.Start(t.Context(), embedded.Config{
		Dir: filepath.Join(t.TempDir(), "etcd"), ClientURL: "http://" + loopback.Free(t), UnsafeNoFsync: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Kill()
	c, err := New(Config{Endpoints: []string{s.Endpoint()}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
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
