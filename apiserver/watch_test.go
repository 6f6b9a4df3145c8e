// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/weft-net/weft/kvstore/kvstoretest"
)

func state(id int64) *pb.WatchCreateRequest {
	return &pb.WatchCreateRequest{Key: []byte("cilium/state/"), RangeEnd: []byte("cilium/state0"), WatchId: id}
}

// TestWatch_ManyOnOneStream creates and cancels watches on one stream of etcd and server alike.
func TestWatch_ManyOnOneStream(t *testing.T) {
	f := newFixture(t, nil)
	f.Put(f.direct, "cilium/state/a", "1")
	f.Put(f.direct, "elsewhere", "1")
	if fresh, err := f.api.cache.Sync(t.Context()); !fresh {
		t.Fatal(err)
	}
	etcd, api := openWatch(t, f.dialEtcd(t)), openWatch(t, f.dial(t, "remote"))
	negative := state(0)
	negative.StartRevision = -1
	for _, req := range []any{
		state(0), state(0), state(7), state(7), state(1), state(0),
		&pb.WatchCreateRequest{Key: []byte("cilium/state/b"), RangeEnd: []byte("cilium/state/a")},
		negative,
		&pb.WatchCancelRequest{WatchId: 7}, state(7), state(0),
	} {
		send(t, etcd, req)
		send(t, api, req)
		want, got := next(t, etcd), next(t, api)
		for _, m := range []*pb.WatchResponse{want, got} {
			m.Header.ClusterId, m.Header.MemberId, m.Header.RaftTerm = 0, 0, 0
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Fatalf("%v (-etcd +server):\n%s", req, diff)
		}
	}
	// A cancel of what is not there is not answered, progress of all is.
	for _, st := range []pb.Watch_WatchClient{etcd, api} {
		send(t, st, &pb.WatchCancelRequest{WatchId: 99})
		send(t, st, &pb.WatchProgressRequest{})
		if m := next(t, st); m.WatchId != invalidID || len(m.Events) > 0 || m.Header.Revision == 0 {
			t.Errorf("progress: %v", m)
		}
	}
	// Each watch is told of a change.
	f.Put(f.direct, "cilium/state/b", "1")
	var told []map[int64]bool
	for _, st := range []pb.Watch_WatchClient{etcd, api} {
		seen := map[int64]bool{}
		for len(seen) < 5 {
			if m := next(t, st); len(m.Events) == 1 {
				seen[m.WatchId] = true
			}
		}
		told = append(told, seen)
	}
	if diff := cmp.Diff(told[0], told[1]); diff != "" {
		t.Errorf("watches that were told (-etcd +server):\n%s", diff)
	}
}

// TestWatch_OfARevisionThatNeverWas is ended as one of a forgotten revision: the client comes from
// another store.
func TestWatch_OfARevisionThatNeverWas(t *testing.T) {
	f := newFixture(t, nil)
	rev := f.Put(f.direct, "cilium/state/a", "1")
	st := openWatch(t, f.dial(t, "remote"))
	req := state(0)
	req.StartRevision = rev + 1000
	send(t, st, req)
	if m := next(t, st); !m.Created || m.Canceled {
		t.Fatal(m)
	}
	if m := next(t, st); !m.Canceled || m.CompactRevision < rev {
		t.Fatal(m)
	}
	// One that the etcd has, and the server does not know yet, is served.
	f.Proxy.Freeze()
	req.StartRevision = f.Put(f.direct, "cilium/state/b", "1")
	f.Put(f.direct, "cilium/state/b", "2")
	req.StartRevision++
	send(t, st, req)
	if m := next(t, st); !m.Created || m.Canceled {
		t.Fatal(m)
	}
	f.Proxy.Thaw()
	if m := next(t, st); len(m.Events) != 1 || string(m.Events[0].Kv.Value) != "2" {
		t.Fatal(m)
	}
}

// TestWatch_OfWhatIsForgotten tells where the history begins.
func TestWatch_OfWhatIsForgotten(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.History.Revisions, c.History.Age = 5, 1 })
	var rev int64
	for range 20 {
		rev = f.Put(f.direct, "cilium/state/a", "1")
	}
	if fresh, err := f.api.cache.Sync(t.Context()); !fresh {
		t.Fatal(err)
	}
	st := openWatch(t, f.dial(t, "remote"))
	req := state(0)
	req.StartRevision = 3
	send(t, st, req)
	if m := next(t, st); !m.Created {
		t.Fatal(m)
	}
	m := next(t, st)
	if !m.Canceled || m.CompactRevision != rev-4 {
		t.Fatal(m)
	}
	req.StartRevision = m.CompactRevision
	send(t, st, req)
	next(t, st)
	if m := next(t, st); len(m.Events) != 5 {
		t.Fatal(m)
	}
}

// TestWatch_EndsWhenTheStoreIsAnother wipes the etcd: what was is served until its owners are back,
// here at once because it has none.
func TestWatch_EndsWhenTheStoreIsAnother(t *testing.T) {
	f := newFixture(t, nil)
	f.Put(f.direct, "cilium/state/a", "1")
	if fresh, err := f.api.cache.Sync(t.Context()); !fresh {
		t.Fatal(err) // a store of which nothing was seen cannot be recognised, and a watch from now on would be told of the put
	}
	c := f.dial(t, "remote")
	st := openWatch(t, c)
	send(t, st, state(0))
	next(t, st)
	f.Wipe()
	f.Burn(f.direct, 30)
	if _, err := st.Recv(); status.Code(err) != codes.Unavailable {
		t.Fatalf("the stream goes on over another store: %v", err)
	}
	f.wantFresh(t)
	// Who resumes in the middle of the other store's life is told to begin anew.
	st = openWatch(t, c)
	req := state(0)
	req.StartRevision = 3
	send(t, st, req)
	next(t, st)
	if m := next(t, st); !m.Canceled || m.CompactRevision == 0 {
		t.Fatal(m)
	}
}

// TestWatch_OfManyWatchesIsOneOfTheEtcd opens many watches and counts those of the etcd's streams by
// what passes: an event goes to all of them.
func TestWatch_OfManyWatchesIsOneOfTheEtcd(t *testing.T) {
	f := newFixture(t, nil)
	const n = 500
	st := openWatch(t, f.dial(t, "remote"))
	go func() {
		for range n {
			_ = st.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: state(0)}})
		}
	}()
	for range n {
		if m := next(t, st); !m.Created || m.Canceled {
			t.Fatal(m)
		}
	}
	f.Put(f.direct, "cilium/state/a", "1")
	seen := map[int64]bool{}
	for len(seen) < n {
		m := next(t, st)
		if seen[m.WatchId] || len(m.Events) != 1 {
			t.Fatalf("watch %d: %v", m.WatchId, m)
		}
		seen[m.WatchId] = true
	}
	if w := f.api.cache.Status().Watches; w != 1 {
		t.Errorf("%d watches of the etcd", w)
	}
	if _, watches := f.api.users.totals(); watches != n {
		t.Errorf("%d watches are counted", watches)
	}
	if got, err := f.registry.Gather(); err != nil || len(got) < 15 {
		t.Errorf("%d metrics: %v", len(got), err)
	}
}

// TestWatch_GoesOnWhenTheClientSendsNoMore closes the client's side of a stream of both.
func TestWatch_GoesOnWhenTheClientSendsNoMore(t *testing.T) {
	f := newFixture(t, nil)
	for name, c := range map[string]*grpc.ClientConn{"etcd": f.dialEtcd(t), "server": f.dial(t, "remote")} {
		if fresh, err := f.api.cache.Sync(t.Context()); !fresh { // from now on is what the cache has
			t.Fatal(err)
		}
		st := openWatch(t, c)
		send(t, st, state(0))
		next(t, st)
		if err := st.CloseSend(); err != nil {
			t.Fatal(err)
		}
		f.Put(f.direct, "cilium/state/a", name)
		if m := next(t, st); len(m.Events) != 1 || string(m.Events[0].Kv.Value) != name {
			t.Errorf("%s: %v", name, m)
		}
	}
}

// TestWatch_LeavesNothingWaiting ends and cancels watches that wait for a revision: what waits for
// them ends with them, not with the stream.
func TestWatch_LeavesNothingWaiting(t *testing.T) {
	f := newFixture(t, nil)
	rev := f.Put(f.direct, "cilium/state/a", "1")
	st := openWatch(t, f.dial(t, "remote"))
	send(t, st, state(0))
	next(t, st)
	before := waiting()
	if before != 0 {
		t.Fatalf("%d wait already", before)
	}
	for range 20 { // ended: the store never had it
		req := state(0)
		req.StartRevision = rev + 1000
		send(t, st, req)
		for m := next(t, st); !m.Canceled; m = next(t, st) {
		}
	}
	f.Proxy.Freeze()
	for range 20 { // canceled
		req := state(7)
		req.StartRevision = rev + 1000
		send(t, st, req)
		next(t, st)
		send(t, st, &pb.WatchCancelRequest{WatchId: 7})
		for m := next(t, st); !m.Canceled; m = next(t, st) {
		}
	}
	kvstoretest.Eventually(t, func() string {
		if n := waiting(); n > 0 {
			return fmt.Sprintf("%d goroutines wait for watches that are gone", n)
		}
		return ""
	})
}

// waiting counts the goroutines that wait on behalf of a watch.
func waiting() int {
	stacks := make([]byte, 8<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return bytes.Count(stacks, []byte("watchStream).later.func")) + bytes.Count(stacks, []byte("watchStream).judge.func"))
}
