// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// TestEncode_IsWhatTheLibraryMakes compares with a message of one event, and looks whether the event
// is still itself.
func TestEncode_IsWhatTheLibraryMakes(t *testing.T) {
	strange := &mvccpb.KeyValue{Key: []byte("k")} // with a field of a later etcd
	strange.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 5))
	for name, ev := range map[string]*mvccpb.Event{
		"put": {Kv: &mvccpb.KeyValue{
			Key: []byte("cilium/state/ip/v1/default/10.0.0.1"), Value: []byte(`{"IP":"10.0.0.1"}`),
			CreateRevision: 7, ModRevision: 1 << 40, Version: 3, Lease: -5,
		}},
		"delete":   {Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte("k"), ModRevision: 9}},
		"no-value": {Kv: &mvccpb.KeyValue{Key: []byte("k"), Value: []byte{}, CreateRevision: 1, ModRevision: 1, Version: 1}},
		"large":    {Kv: &mvccpb.KeyValue{Key: []byte("k"), Value: bytes.Repeat([]byte("v"), 1<<20), ModRevision: 3, Version: 1}},
		"unknown":  {Kv: strange},
		"empty":    {Kv: &mvccpb.KeyValue{}},
	} {
		t.Run(name, func(t *testing.T) {
			before := proto.Clone(ev).(*mvccpb.Event)
			want, err := proto.Marshal(&pb.WatchResponse{Events: []*mvccpb.Event{ev}})
			if err != nil {
				t.Fatal(err)
			}
			s := new(Store)
			got := s.encodeLocked(ev).ReadOnlyData()
			if !bytes.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
			if cap(got) != len(want) || s.coded != int64(len(want)) {
				t.Errorf("room for %d and %d counted, want %d", cap(got), s.coded, len(want))
			}
			if !proto.Equal(before, ev) { // a difference of a megabyte takes most of a minute to look for
				t.Errorf("the event was changed (-before +after):\n%s", cmp.Diff(before, ev, protocmp.Transform()))
			}
		})
	}
}

// TestStore_EncodesOnce looks at what any number of readers of the history get, of what was applied and
// of what was fetched from before.
func TestStore_EncodesOnce(t *testing.T) {
	kv := func(rev int64, value string) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Key: []byte("a"), Value: []byte(value), CreateRevision: 1, ModRevision: rev, Version: rev}
	}
	s := NewStore(History{}, 3, []*mvccpb.KeyValue{kv(3, "three")})
	s.expectFill(1)
	var pasts []past
	for rev := int64(1); rev <= 3; rev++ {
		pasts = append(pasts, past{rev, []*mvccpb.Event{{Kv: kv(rev, []string{"one", "two", "three"}[rev-1])}}})
	}
	if err := s.backfill(1, pasts); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(4, []*mvccpb.Event{{Kv: kv(4, "four")}}); err != nil {
		t.Fatal(err)
	}
	encoded := s.Stats().Encoded
	for range 10 {
		b, err := s.Since(1, 1<<20, false)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range b.Changes {
			m := new(pb.WatchResponse)
			if err := proto.Unmarshal(c.Encoded.ReadOnlyData(), m); err != nil {
				t.Fatal(err)
			}
			if len(m.Events) != 1 || !proto.Equal(m.Events[0], c.Event) {
				t.Errorf("%v is encoded as %v", c.Event, m)
			}
			got = append(got, string(m.Events[0].Kv.Value))
		}
		if diff := cmp.Diff([]string{"one", "two", "three", "four"}, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	}
	if now := s.Stats().Encoded; encoded == 0 || now != encoded {
		t.Errorf("%d bytes were encoded for the first reader and %d for all", encoded, now)
	}
}

func TestChange_IsEncodedWithWhatWasBefore(t *testing.T) {
	ev := &mvccpb.Event{
		Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte("k"), ModRevision: 9},
		PrevKv: &mvccpb.KeyValue{Key: []byte("k"), Value: bytes.Repeat([]byte("v"), 300), CreateRevision: 2, ModRevision: 8, Version: 4},
	}
	want, err := proto.Marshal(&pb.WatchResponse{Events: []*mvccpb.Event{ev}})
	if err != nil {
		t.Fatal(err)
	}
	c := Change{Event: ev, Prev: ev.PrevKv, Encoded: new(Store).encodeLocked(ev)}
	if got := c.EncodedWithPrev().ReadOnlyData(); !bytes.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func BenchmarkStore_Apply(b *testing.B) {
	s := NewStore(History{Revisions: 1000, Age: 1}, 1, nil)
	events := make([][]*mvccpb.Event, b.N)
	for i := range events {
		events[i] = []*mvccpb.Event{{Kv: &mvccpb.KeyValue{
			Key: fmt.Appendf(nil, "cilium/state/ip/v1/default/10.0.0.%d", i%256), Value: make([]byte, 155),
			CreateRevision: 1, ModRevision: int64(i) + 2, Version: 2,
		}}}
	}
	b.ResetTimer()
	for i, evs := range events {
		if err := s.Apply(int64(i)+2, evs); err != nil {
			b.Fatal(err)
		}
	}
}
