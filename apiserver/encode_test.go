// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/weft-net/weft/apiserver/cache"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// decoded is a message as a client gets it.
func decoded(t *testing.T, m any) *pb.WatchResponse {
	t.Helper()
	b, err := newCodec().Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	out := new(pb.WatchResponse)
	if err := newCodec().Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// changesOf are events as the history has them.
func changesOf(t *testing.T, evs ...*mvccpb.Event) []cache.Change {
	t.Helper()
	s := cache.NewStore(cache.History{}, 0, nil)
	for i, ev := range evs {
		if err := s.Apply(int64(i)+1, []*mvccpb.Event{ev}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := s.Since(1, 1<<30, true)
	if err != nil {
		t.Fatal(err)
	}
	return b.Changes
}

func TestEventMessage_IsAWatchResponse(t *testing.T) {
	put := &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte("a"), Value: []byte("1"), ModRevision: 1, CreateRevision: 1, Version: 1}}
	del := &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte("a"), ModRevision: 2}}
	changes := changesOf(t, put, del)
	for _, want := range []*pb.WatchResponse{
		{Header: &pb.ResponseHeader{ClusterId: 1 << 63, MemberId: 3, Revision: 9, RaftTerm: 2}, WatchId: 7, Fragment: true},
		{Header: &pb.ResponseHeader{}, WatchId: -1},
		{},
	} {
		m := &eventMessage{head: proto.Clone(want).(*pb.WatchResponse)}
		for _, c := range changes {
			m.events = append(m.events, c.Encoded)
			want.Events = append(want.Events, c.Event)
		}
		if diff := cmp.Diff(want, decoded(t, m), protocmp.Transform()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	plain := &pb.WatchResponse{WatchId: 5, Created: true}
	if diff := cmp.Diff(plain, decoded(t, plain), protocmp.Transform()); diff != "" {
		t.Errorf("any other message (-want +got):\n%s", diff)
	}
}

func TestFragments_AreTheWhole(t *testing.T) {
	var evs []*mvccpb.Event
	for i := range 50 {
		evs = append(evs, &mvccpb.Event{Kv: &mvccpb.KeyValue{
			Key: fmt.Appendf(nil, "k%d", i), Value: make([]byte, 90_000), ModRevision: int64(i) + 1, Version: 1,
		}})
	}
	m := &eventMessage{head: &pb.WatchResponse{Header: &pb.ResponseHeader{Revision: 9}, WatchId: 3}}
	for _, c := range changesOf(t, evs...) {
		m.events = append(m.events, c.Encoded)
	}
	parts := m.fragments()
	whole := &pb.WatchResponse{Header: m.head.Header, WatchId: m.head.WatchId}
	for i, part := range parts {
		p := decoded(t, part)
		if p.Fragment != (i < len(parts)-1) || proto.Size(p) > fragmentBytes || p.WatchId != 3 || p.Header.Revision != 9 {
			t.Errorf("part %d of %d: %d bytes, fragment %t", i, len(parts), proto.Size(p), p.Fragment)
		}
		whole.Events = append(whole.Events, p.Events...)
	}
	if len(parts) < 3 || !proto.Equal(whole, decoded(t, m)) {
		t.Errorf("%d parts are not the whole", len(parts))
	}
	one := &eventMessage{head: m.head, events: mem.BufferSlice{m.events[0]}}
	if parts := one.fragments(); len(parts) != 1 || parts[0].head.Fragment {
		t.Error("a small message is divided")
	}
}

// TestWatch_EncodesForAll counts what is encoded for one watch and for many: it is the same, but for
// those that are told what was before.
func TestWatch_EncodesForAll(t *testing.T) {
	f := newFixture(t, nil)
	c := f.dial(t, "remote")
	encoded := func() float64 { return f.api.reading().encoded }
	tell := func(sts ...pb.Watch_WatchClient) float64 {
		before := encoded()
		rev := f.Put(f.direct, "cilium/state/a", "always as long")
		for _, st := range sts {
			for {
				if m := next(t, st); len(m.Events) > 0 && m.Events[0].Kv.ModRevision == rev {
					break
				}
			}
		}
		return encoded() - before
	}
	f.Put(f.direct, "cilium/state/a", "always as long")
	kvstoretest.Eventually(t, func() string {
		if encoded() == 0 {
			return "nothing came"
		}
		return ""
	})
	open := func(req *pb.WatchCreateRequest) pb.Watch_WatchClient {
		st := openWatch(t, c)
		send(t, st, req)
		next(t, st)
		return st
	}
	sts := []pb.Watch_WatchClient{open(state(0))}
	alone := tell(sts...)
	for range 40 {
		sts = append(sts, open(state(0)))
	}
	if got := tell(sts...); got != alone || alone == 0 {
		t.Errorf("%v bytes were encoded for 41 watches, %v for one", got, alone)
	}
	prev := state(0)
	prev.PrevKv = true
	if got := tell(append(sts, open(prev))...); got <= alone {
		t.Errorf("%v bytes were encoded with what was before, %v without", got, alone)
	}
}

// TestWatch_CoalescesWhatHappensInAWindow writes while the window behind a first change is shut: what
// was written is told in one message, for which a request opens the window before its time.
func TestWatch_CoalescesWhatHappensInAWindow(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Coalesce = longestCoalesce })
	st := openWatch(t, f.dial(t, "remote"))
	send(t, st, state(0))
	next(t, st)
	first := f.Put(f.direct, "cilium/state/a", "0")
	if m := next(t, st); len(m.Events) != 1 || m.Events[0].Kv.ModRevision != first {
		t.Fatalf("the first change: %v", m)
	}
	var last int64
	for i := range 5 {
		last = f.Put(f.direct, "cilium/state/a", fmt.Sprint(i))
	}
	if fresh, err := f.api.cache.Sync(t.Context()); !fresh {
		t.Fatal(err)
	}
	send(t, st, &pb.WatchProgressRequest{})
	if m := next(t, st); len(m.Events) != 5 || m.Events[0].Kv.ModRevision != first+1 || m.Header.Revision < last {
		t.Fatalf("not all that was written, in one message: %v", m)
	}
	if m := next(t, st); m.WatchId != invalidID || m.Header.Revision < last {
		t.Fatalf("no progress behind it: %v", m)
	}
}

// TestWatch_CoalescedIsTheWhole writes with a short window and asks for nothing: every change arrives,
// once and in order.
func TestWatch_CoalescedIsTheWhole(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Coalesce = 5 * time.Millisecond })
	st := openWatch(t, f.dial(t, "remote"))
	send(t, st, state(0))
	next(t, st)
	var want, got []int64
	for i := range 100 {
		want = append(want, f.Put(f.direct, "cilium/state/a", fmt.Sprint(i)))
	}
	messages := 0
	for len(got) < len(want) {
		messages++
		for _, ev := range next(t, st).Events {
			got = append(got, ev.Kv.ModRevision)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("revisions (-want +got):\n%s", diff)
	}
	t.Logf("%d changes in %d messages", len(got), messages)
}
