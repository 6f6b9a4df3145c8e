// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// TestSoak_StaysThroughSilence says nothing for 10 minutes, on one connection with a watch and on one
// without, but for pings each 15 s, as Cilium does: neither connection ends, and the watch is told of
// what happens then. It needs WEFT_SOAK to be set.
func TestSoak_StaysThroughSilence(t *testing.T) {
	if os.Getenv("WEFT_SOAK") == "" {
		t.Skip("WEFT_SOAK is not set")
	}
	staySilent(t, 10*time.Minute, 15*time.Second)
}

func staySilent(t *testing.T, long, ping time.Duration) {
	f := newFixture(t, nil)
	var connections atomic.Int64
	connect := func() *grpc.ClientConn {
		return f.dial(t, "remote",
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: ping, Timeout: 25 * time.Second, PermitWithoutStream: true}),
			grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
				connections.Add(1)
				var d net.Dialer
				return d.DialContext(ctx, "tcp", address)
			}))
	}
	watching, idle := connect(), connect()
	read := func() {
		t.Helper()
		if _, err := pb.NewKVClient(idle).Range(t.Context(), &pb.RangeRequest{Key: []byte("cilium/state/a")}); err != nil {
			t.Fatal(err)
		}
	}
	read()
	st := openWatch(t, watching)
	send(t, st, state(0))
	next(t, st)
	type message struct {
		resp *pb.WatchResponse
		err  error
	}
	got := make(chan message, 1)
	go func() {
		resp, err := st.Recv()
		got <- message{resp, err}
	}()
	silence := time.NewTimer(long)
	defer silence.Stop()
	select {
	case m := <-got:
		t.Fatalf("silence was broken: %v, %v", m.resp, m.err)
	case <-silence.C:
	}
	rev := f.Put(f.direct, "cilium/state/a", "at last")
	select {
	case m := <-got:
		if m.err != nil || len(m.resp.Events) != 1 || m.resp.Events[0].Kv.ModRevision != rev {
			t.Fatalf("after the silence: %v, %v", m.resp, m.err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the watch is told of nothing")
	}
	read()
	if n := connections.Load(); n != 2 {
		t.Errorf("%d connections were made, want 2 that stay", n)
	}
}
