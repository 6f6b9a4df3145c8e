// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// TestWatch_SharesOnlyWhatIsTheSame opens streams that are told of the same changes, but of others of
// them, under other ids, or with what was before: each is told what it asked for, as if it were alone.
func TestWatch_SharesOnlyWhatIsTheSame(t *testing.T) {
	f := newFixture(t, nil)
	c := f.dial(t, "remote")
	requests := map[string]*pb.WatchCreateRequest{}
	for i := range 3 {
		requests[fmt.Sprint("same-", i)] = state(0)
	}
	requests["id"] = state(7)
	requests["no-put"] = state(0)
	requests["no-put"].Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}
	requests["no-delete"] = state(0)
	requests["no-delete"].Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}
	requests["prev"] = state(0)
	requests["prev"].PrevKv = true
	requests["fragment"] = state(0)
	requests["fragment"].Fragment = true
	requests["part"] = &pb.WatchCreateRequest{Key: []byte("cilium/state/b"), RangeEnd: []byte("cilium/state/c")}
	f.Put(f.direct, "cilium/state/a", "before")
	f.Put(f.direct, "cilium/state/b", "before")
	if fresh, err := f.api.cache.Sync(t.Context()); !fresh {
		t.Fatal(err)
	}
	streams := map[string]pb.Watch_WatchClient{}
	for name, req := range requests {
		streams[name] = openWatch(t, c)
		send(t, streams[name], req)
		if m := next(t, streams[name]); m.Canceled {
			t.Fatal(m)
		}
	}
	want := map[string][]string{}
	for i := range 20 {
		for _, key := range []string{"a", "b"} {
			// What deletes makes another revision than what puts.
			for _, deleted := range []bool{false, true} {
				text := fmt.Sprintf("put %s %d", key, i)
				if deleted {
					text = "delete " + key
					if _, err := f.direct.Etcd().Delete(t.Context(), "cilium/state/"+key); err != nil {
						t.Fatal(err)
					}
				} else {
					f.Put(f.direct, "cilium/state/"+key, fmt.Sprint(i))
				}
				for name := range streams {
					if name == "no-put" && !deleted || name == "no-delete" && deleted || name == "part" && key != "b" {
						continue
					}
					want[name] = append(want[name], text)
				}
			}
		}
	}
	for name, st := range streams {
		var got []string
		withPrev := 0
		for len(got) < len(want[name]) {
			m := next(t, st)
			if m.WatchId != requests[name].WatchId {
				t.Fatalf("%s: a message to watch %d", name, m.WatchId)
			}
			for _, ev := range m.Events {
				key := string(ev.Kv.Key[len("cilium/state/"):])
				if ev.Type == mvccpb.Event_DELETE {
					got = append(got, "delete "+key)
				} else {
					got = append(got, fmt.Sprintf("put %s %s", key, ev.Kv.Value))
				}
				if ev.PrevKv != nil {
					withPrev++
				}
			}
		}
		if diff := cmp.Diff(want[name], got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if name == "prev" != (withPrev > 0) {
			t.Errorf("%s: %d events have what was before", name, withPrev)
		}
	}
}
