// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// model is what a Store has to be: every revision kept whole.
type model struct {
	r      *rand.Rand
	rev    int64
	now    map[string]*mvccpb.KeyValue
	states map[int64]map[string]*mvccpb.KeyValue
	events map[int64][]*mvccpb.Event // with PrevKv
}

func newModel(seed uint64) *model {
	m := &model{
		r: rand.New(rand.NewPCG(seed, 7)), rev: 1, now: map[string]*mvccpb.KeyValue{},
		states: map[int64]map[string]*mvccpb.KeyValue{}, events: map[int64][]*mvccpb.Event{},
	}
	m.states[1] = maps.Clone(m.now)
	return m
}

// step makes one revision, without any change now and then.
func (m *model) step() []*mvccpb.Event {
	m.rev++
	var evs []*mvccpb.Event
	if m.r.IntN(8) > 0 {
		used := map[string]bool{}
		for range 1 + m.r.IntN(4) {
			k := fmt.Sprintf("p/%02d", m.r.IntN(60))
			old := m.now[k]
			if used[k] || m.r.IntN(3) == 0 && old == nil {
				continue
			}
			used[k] = true
			ev := &mvccpb.Event{PrevKv: old}
			if m.r.IntN(3) == 0 && old != nil {
				ev.Type, ev.Kv = mvccpb.Event_DELETE, &mvccpb.KeyValue{Key: []byte(k), ModRevision: m.rev}
				delete(m.now, k)
			} else {
				kv := &mvccpb.KeyValue{
					Key: []byte(k), Value: []byte(strings.Repeat("v", m.r.IntN(9))), CreateRevision: m.rev,
					ModRevision: m.rev, Version: 1, Lease: int64(m.r.IntN(2)),
				}
				if old != nil {
					kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
				}
				ev.Kv, m.now[k] = kv, kv
			}
			evs = append(evs, ev)
		}
	}
	m.states[m.rev], m.events[m.rev] = maps.Clone(m.now), evs
	return bare(evs)
}

// bare is what a watch delivers: without what was before.
func bare(evs []*mvccpb.Event) []*mvccpb.Event {
	var out []*mvccpb.Event
	for _, ev := range evs {
		out = append(out, &mvccpb.Event{Type: ev.Type, Kv: ev.Kv})
	}
	return out
}

func (m *model) list() []*mvccpb.KeyValue {
	var kvs []*mvccpb.KeyValue
	for _, k := range slices.Sorted(maps.Keys(m.now)) {
		kvs = append(kvs, m.now[k])
	}
	return kvs
}

// feed steps n times into a store.
func (m *model) feed(t *testing.T, s *Store, n int) {
	t.Helper()
	for range n {
		if evs := m.step(); len(evs) == 0 {
			s.Advance(m.rev)
		} else if err := s.Apply(m.rev, evs); err != nil {
			t.Fatal(err)
		}
	}
}

// wantRange compares one random read.
func (m *model) wantRange(t *testing.T, s *Store) {
	t.Helper()
	req := &pb.RangeRequest{Key: fmt.Appendf(nil, "p/%02d", m.r.IntN(60)), CountOnly: m.r.IntN(9) == 0}
	switch m.r.IntN(4) {
	case 0:
		req.RangeEnd = []byte{0}
	case 1, 2:
		req.RangeEnd = fmt.Appendf(nil, "p/%02d", m.r.IntN(60))
	}
	if m.r.IntN(2) == 0 {
		req.Limit = int64(m.r.IntN(30))
	}
	st := s.Stats()
	at := st.Revision
	if m.r.IntN(2) == 0 {
		at = st.Floor + m.r.Int64N(st.Revision-st.Floor+1)
		req.Revision = at
	}
	from, to := Bounds(req.Key, req.RangeEnd)
	want := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: st.Revision}}
	for _, k := range slices.Sorted(maps.Keys(m.states[at])) {
		if k < from || to != "" && k >= to {
			continue
		}
		want.Count++
		switch {
		case req.CountOnly:
		case req.Limit > 0 && want.Count > req.Limit:
			want.More = true
		default:
			want.Kvs = append(want.Kvs, m.states[at][k])
		}
	}
	got, err := s.Snapshot().Range(req)
	if err != nil {
		t.Fatalf("%v: %v", req, err)
	}
	if !proto.Equal(want, got) {
		diff := cmp.Diff(want, got, protocmp.Transform())
		t.Fatalf("%v at %d, floor %d (-want +got):\n%s", req, at, st.Floor, diff)
	}
}

// wantSince compares the history from a random revision on.
func (m *model) wantSince(t *testing.T, s *Store) {
	t.Helper()
	s.mu.RLock()
	first := s.log.first
	s.mu.RUnlock()
	from := first + m.r.Int64N(m.rev-first+2)
	at, limit := from, m.r.Int64N(20*overhead)
	for at <= m.rev {
		b, err := s.Since(at, limit, true)
		if err != nil {
			t.Fatal(err)
		}
		var want []Change
		for rev := at; rev <= b.Through; rev++ {
			for _, ev := range m.events[rev] {
				c := Change{Event: &mvccpb.Event{Type: ev.Type, Kv: ev.Kv}, Prev: ev.PrevKv}
				if rev-1 < s.Stats().Floor {
					c.Prev = nil // as etcd, which cannot read that revision either
				}
				want = append(want, c)
			}
		}
		same := func(a, b Change) bool { return proto.Equal(a.Event, b.Event) && proto.Equal(a.Prev, b.Prev) }
		if !slices.EqualFunc(want, b.Changes, same) {
			t.Fatalf("from %d through %d: got %v, want %v", at, b.Through, b.Changes, want)
		}
		if b.Through < at {
			t.Fatalf("no way on from %d: %+v", at, b)
		}
		at = b.Through + 1
	}
}

func TestStore_IsTheModel(t *testing.T) {
	for _, tt := range []struct {
		name    string
		history History
	}{
		{"keeps-all", History{}},
		{"few-revisions", History{Age: time.Nanosecond, Revisions: 25}},
		{"few-bytes", History{Bytes: 40 * overhead}},
		{"one-revision", History{Bytes: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			m := newModel(seed)
			for range 50 {
				m.step()
			}
			s := NewStore(tt.history, m.rev, m.list())
			for i := range 200 {
				m.feed(t, s, 1+m.r.IntN(3))
				for range 5 {
					m.wantRange(t, s)
				}
				if i%4 == 0 {
					m.wantSince(t, s)
				}
			}
			st := s.Stats()
			if n := len(m.now); st.Keys != n {
				t.Errorf("%d keys, want %d", st.Keys, n)
			}
			if tt.name != "keeps-all" && st.Revisions > 60 {
				t.Errorf("%d revisions are kept", st.Revisions)
			}
			if v := s.view.Load(); v.keys.len() > 60 {
				t.Errorf("%d keys are remembered of 60", v.keys.len())
			}
			var sum int64
			s.view.Load().keys.ascend("", "", func(it *item) bool { sum += sizeOf(it.head.Load().kv); return true })
			if sum != st.Bytes {
				t.Errorf("%d bytes are counted, want %d", st.Bytes, sum)
			}
		})
	}
}

func TestStore_Refuses(t *testing.T) {
	m := newModel(3)
	for range 20 {
		m.step()
	}
	s := NewStore(History{}, m.rev, m.list())
	m.feed(t, s, 5)
	if err := s.Apply(m.rev, nil); err == nil {
		t.Error("a revision came twice")
	}
	var compacted *CompactedError
	if _, err := s.Snapshot().Range(&pb.RangeRequest{Key: []byte("p"), Revision: 20}); !errors.As(err, &compacted) || compacted.Revision != 21 {
		t.Errorf("read before the floor: %v", err)
	}
	if _, err := s.Since(21, 1, false); !errors.As(err, &compacted) || compacted.Revision != 22 {
		t.Errorf("watch from before the history: %v", err)
	}
	if _, err := s.Snapshot().Range(&pb.RangeRequest{Key: []byte("p"), Revision: m.rev + 1}); !errors.Is(err, ErrFuture) {
		t.Errorf("read of the future: %v", err)
	}
	if b, err := s.Since(m.rev+9, 1, false); err != nil || b.Through != m.rev+8 || len(b.Changes) > 0 {
		t.Errorf("watch of the future: %+v, %v", b, err)
	}
}

// TestStore_Backfill begins late, feeds on, and puts the past before it.
func TestStore_Backfill(t *testing.T) {
	for _, tt := range []struct {
		name    string
		history History
		whole   bool
	}{
		{"all", History{}, true},
		{"as-much-as-fits", History{Bytes: 100 * overhead}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			m := newModel(seed)
			for range 120 {
				m.step()
			}
			const from = 40
			s := NewStore(tt.history, m.rev, m.list())
			var pasts []past
			for rev := int64(from); rev <= m.rev; rev++ {
				if evs := m.events[rev]; len(evs) > 0 {
					p := past{rev: rev}
					for _, ev := range evs {
						if rev == from {
							ev = &mvccpb.Event{Type: ev.Type, Kv: ev.Kv} // the etcd knows no more
						}
						p.events = append(p.events, ev)
					}
					pasts = append(pasts, p)
				}
			}
			s.expectFill(from)
			m.feed(t, s, 10)
			var filling *FillingError
			if _, err := s.Since(from, 1, false); !errors.As(err, &filling) {
				t.Fatalf("a watch does not wait for the history: %v", err)
			}
			if _, err := s.Snapshot().Range(&pb.RangeRequest{Key: []byte("p"), Revision: from}); !errors.As(err, &filling) {
				t.Fatalf("a read does not wait for the history: %v", err)
			}
			if _, err := s.Since(from-1, 1, false); !errors.As(err, new(*CompactedError)) {
				t.Fatalf("a watch waits for what will not come: %v", err)
			}
			before := s.Snapshot()
			if err := s.backfill(from, pasts); err != nil {
				t.Fatal(err)
			}
			<-filling.Done
			// A snapshot from before does not know what was deleted meanwhile: the next one has to be asked.
			if _, err := before.Range(&pb.RangeRequest{Key: []byte("p"), RangeEnd: []byte("q"), Revision: 119}); !errors.As(err, &filling) {
				t.Fatalf("a snapshot from before the history reads it: %v", err)
			}
			<-filling.Done
			if _, err := before.Range(&pb.RangeRequest{Key: []byte("p"), Revision: before.Revision()}); err != nil {
				t.Fatal(err)
			}
			if floor := s.Stats().Floor; (floor == from) != tt.whole || floor >= 121 {
				t.Fatalf("floor %d after the history came from %d", floor, from)
			}
			for range 60 {
				m.wantRange(t, s)
				m.wantSince(t, s)
			}
			m.feed(t, s, 100)
			for range 60 {
				m.wantRange(t, s)
				m.wantSince(t, s)
			}
		})
	}
}

// TestStore_BackfillThatDoesNotFit offers histories of another store.
func TestStore_BackfillThatDoesNotFit(t *testing.T) {
	kv := func(key, value string, mod int64) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), CreateRevision: 2, ModRevision: mod, Version: 1}
	}
	put := func(key, value string, rev int64) past {
		return past{rev, []*mvccpb.Event{{Kv: kv(key, value, rev)}}}
	}
	for name, pasts := range map[string][]past{
		"another-value":    {put("a", "other", 5), put("b", "1", 7)},
		"another-revision": {put("a", "1", 4), put("b", "1", 7)},
		"another-key":      {put("a", "1", 5), put("b", "1", 7), put("c", "1", 6)},
		"a-change-less":    {put("a", "1", 5)},
		"a-deleted-key": {put("a", "1", 5), {8, []*mvccpb.Event{
			{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte("b"), ModRevision: 8}},
		}}},
		"behind-the-list": {put("a", "1", 5), put("b", "1", 11)},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewStore(History{}, 10, []*mvccpb.KeyValue{kv("a", "1", 5), kv("b", "1", 7)})
			s.expectFill(3)
			if err := s.backfill(3, pasts); !errors.Is(err, errUnlike) {
				t.Errorf("got %v", err)
			}
			if st := s.Stats(); st.Floor != 10 || st.Revisions != 0 || st.Filling {
				t.Errorf("after a refused history: %+v", st)
			}
		})
	}
}

// TestStore_ReadsWhileWritten reads at random revisions while another goroutine writes and forgets:
// what is read is right, or refused.
func TestStore_ReadsWhileWritten(t *testing.T) {
	const keys = 40
	s := NewStore(History{Age: time.Nanosecond, Revisions: 50}, 1, nil)
	var wg sync.WaitGroup
	done := make(chan struct{})
	for i := range 2 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for {
				select {
				case <-done:
					return
				default:
				}
				at := s.Revision() - r.Int64N(60)
				got, err := s.Snapshot().Range(&pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Revision: max(at, 1)})
				if errors.As(err, new(*CompactedError)) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				// At revision n the keys n-keys/2 to n-1 stand, each as n wrote it; see below.
				for _, kv := range got.Kvs {
					if kv.ModRevision > max(at, 1) || !bytes.Equal(kv.Value, fmt.Append(nil, kv.ModRevision)) {
						t.Errorf("at %d: %v", at, kv)
						return
					}
				}
				if want := min(max(at, 1)-1, keys/2); got.Count != want {
					t.Errorf("at %d: %d keys, want %d", at, got.Count, want)
					return
				}
			}
		})
	}
	for rev := int64(2); rev < 2500; rev++ {
		key := func(rev int64) []byte { return fmt.Appendf(nil, "k%02d", rev%keys) }
		evs := []*mvccpb.Event{{Kv: &mvccpb.KeyValue{
			Key: key(rev), Value: fmt.Append(nil, rev), CreateRevision: rev, ModRevision: rev, Version: 1,
		}}}
		if gone := rev - keys/2; gone >= 2 {
			evs = append(evs, &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: key(gone), ModRevision: rev}})
		}
		if err := s.Apply(rev, evs); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wg.Wait()
}
