// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstoretest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weft-net/weft/kvstore"
)

func watchBadValues(t *testing.T, start func(testing.TB) *Server) {
	f := newFixture(t, start, func(f *fixture) { f.Put(f.direct, Prefix+"a", "1") })
	bad := f.Put(f.direct, Prefix+"a", "bad news")
	f.Put(f.direct, Prefix+"b", "bad from the start")
	f.Put(f.direct, Prefix+"c", "1")
	WantRows(t, f.table, map[string]string{"a": "1", "c": "1"})
	st := f.watch.Status()
	if st.Rejected != 2 || len(st.Rejections) != 2 {
		t.Fatalf("got %d rejected, %v; want 2 of each", st.Rejected, st.Rejections)
	}
	for _, r := range st.Rejections {
		if r.Key == Prefix+"a" && (r.Revision != bad || !strings.Contains(r.Reason, `"bad news" is bad`)) {
			t.Fatalf("rejection of a says %+v", r)
		}
	}
	f.Put(f.direct, Prefix+"a", "2")
	f.Delete(f.direct, Prefix+"b")
	WantRows(t, f.table, map[string]string{"a": "2", "c": "1"})
	Eventually(t, func() string {
		if st := f.watch.Status(); len(st.Rejections) != 0 || st.Rejected != 2 {
			return fmt.Sprintf("%d rejected, %v after both keys are good; want 2 counted, none shown", st.Rejected, st.Rejections)
		}
		return ""
	})
}

func watchBadList(t *testing.T, start func(testing.TB) *Server) {
	f := newFixture(t, start, func(f *fixture) {
		f.Put(f.direct, Prefix+"a", "1")
		f.Put(f.direct, Prefix+"z", "1")
	})
	f.away(t, func() {
		f.Put(f.direct, Prefix+"a", "bad")
		f.Put(f.direct, Prefix+"b", "bad")
		f.Delete(f.direct, Prefix+"z")
		f.Burn(f.direct, 120)
	})
	f.wantHow(t, 2, 0, kvstore.ContinuityProven)
	WantRows(t, f.table, map[string]string{"a": "1"})
	if st := f.watch.Status(); len(st.Rejections) != 2 {
		t.Fatalf("got %v, want two rejections", st.Rejections)
	}
	// Rejections of keys that are gone are not shown for ever.
	f.away(t, func() {
		f.Delete(f.direct, Prefix+"a")
		f.Delete(f.direct, Prefix+"b")
		f.Burn(f.direct, 120)
	})
	WantRows(t, f.table, map[string]string{})
	if st := f.watch.Status(); len(st.Rejections) != 0 {
		t.Fatalf("got %v, want no rejection", st.Rejections)
	}
}

// watchAsked: a list that is asked for judges refused values again, and is no failure.
func watchAsked(t *testing.T, start func(testing.TB) *Server) {
	f := newFixture(t, start, func(f *fixture) { f.Put(f.direct, Prefix+"a", "1") })
	f.Put(f.direct, Prefix+"b", "bad")
	f.Put(f.direct, Prefix+"c", "1")
	WantRows(t, f.table, map[string]string{"a": "1", "c": "1"})
	f.watch.ListAgain()
	f.wantHow(t, 2, 0, kvstore.ContinuityProven)
	f.wantSynced(t)
	WantRows(t, f.table, map[string]string{"a": "1", "c": "1"})
	if st := f.watch.Status(); st.Rejected != 2 || len(st.Rejections) != 1 || st.LastError != nil {
		t.Fatalf("got %d rejected, %v, error %v; want one key refused twice and no error", st.Rejected, st.Rejections, st.LastError)
	}
}

func watchSpelling(t *testing.T, start func(testing.TB) *Server) {
	f := newFixture(t, start, func(f *fixture) { f.Put(f.direct, Prefix+"a", "1") })
	f.Put(f.direct, Prefix+"A", "2")
	f.Delete(f.direct, Prefix+"A")
	f.Put(f.direct, Prefix+"b", "1")
	WantRows(t, f.table, map[string]string{"a": "1", "b": "1"})
}

func watchHuge(t *testing.T, start func(testing.TB) *Server) {
	s := start(t)
	direct := s.Client()
	s.Fill(direct, Prefix, 4, strings.Repeat("x", 10_000))
	for i := range 8 {
		s.Put(direct, fmt.Sprintf("%shuge%d", Prefix, i), strings.Repeat("x", 1_000_000))
	}
	cc := s.ClientConfig()
	cc.MaxMessageBytes = 2 << 20
	table := Table()
	Watch(t, NewClient(t, cc), table, WatchConfig())
	Eventually(t, func() string {
		if table.Len() != 12 {
			return fmt.Sprintf("%d rows of 12", table.Len())
		}
		return ""
	})
}
