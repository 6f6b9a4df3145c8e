// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/weft-net/weft/kvstore/embedded"
)

// freeURL is one below the ports that connections begin at. The package's helpers for tests import it.
func freeURL(t *testing.T) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.N(22000)))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return "http://" + l.Addr().String()
	}
}

// TestGuard_ListJudgedLate: in a store that is empty yet, a list that was made before another one's and
// is judged after it is of the same store. One that is behind what was seen is not.
func TestGuard_ListJudgedLate(t *testing.T) {
	t.Parallel()
	s, err := embedded.Start(t.Context(), embedded.Config{
		Dir: filepath.Join(t.TempDir(), "etcd"), ClientURL: freeURL(t), UnsafeNoFsync: true,
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
