// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// behind is a member of a store that answers reads as the whole store does, and whose watches begin
// before it has seen what the others have.
type behind struct {
	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer
	kv      pb.KVClient
	watches pb.WatchClient
	opened  atomic.Int32
}

func (b *behind) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	return b.kv.Range(ctx, r)
}

func (b *behind) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	return b.kv.Txn(ctx, r)
}

func (b *behind) Watch(down pb.Watch_WatchServer) error {
	ctx, cancel := context.WithCancel(down.Context())
	defer cancel()
	up, err := b.watches.Watch(ctx)
	if err != nil {
		return err
	}
	go func() {
		defer cancel()
		for {
			r, err := down.Recv()
			if err != nil || up.Send(r) != nil {
				return
			}
		}
	}()
	// The first words are of what it has seen: the answer to the creation, and to one question.
	for old := 2; ; {
		m, err := up.Recv()
		if err != nil {
			return err
		}
		if len(m.Events) == 0 && old > 0 {
			m.Header.Revision, old = 1, old-1
			b.opened.Add(1)
		}
		if err := down.Send(m); err != nil {
			return err
		}
	}
}

// TestWatch_MemberThatIsBehind: a member that has yet to see what another one answered is no other store.
func TestWatch_MemberThatIsBehind(t *testing.T) {
	t.Parallel()
	s := kvstoretest.Start(t, kvstoretest.Options{})
	direct := s.Client()
	conn := direct.Etcd().ActiveConnection()
	member := &behind{kv: pb.NewKVClient(conn), watches: pb.NewWatchClient(conn)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterKVServer(server, member)
	pb.RegisterWatchServer(server, member)
	kvstoretest.Go(t, func(ctx context.Context) error {
		defer context.AfterFunc(ctx, server.Stop)()
		return server.Serve(l)
	})
	cfg := kvstore.DefaultConfig()
	cfg.Endpoints = []string{"http://" + l.Addr().String()}
	c := kvstoretest.NewClient(t, cfg)

	codec := schema.Identities(schema.Scope{Cluster: "a", ClusterID: 1})
	put := func(id uint32) {
		t.Helper()
		k := schema.IdentityKey{Cluster: "a", ID: id}
		b, err := codec.Encode(k, "k8s:app=web;k8s:"+schema.ClusterLabelKey+"=a;")
		if err != nil {
			t.Fatal(err)
		}
		s.Put(direct, codec.Prefix+codec.FormatKey(k), string(b))
	}
	put(65536 + 1)
	g := kvstore.NewGuard(c, kvstore.GuardConfig{Cluster: "a", Limit: time.Hour, Brief: time.Hour, Heartbeat: time.Minute, Follow: kvstoretest.WatchConfig()},
		slog.New(slog.DiscardHandler))
	table := state.NewTable[schema.IdentityKey]("identities", state.Equal[string])
	watch := kvstoretest.WatchConfig()
	watch.Source, watch.Guard = "etcd", g
	w := kvstore.NewWatch(c, codec, table, watch, kvstoretest.Log(t))
	kvstoretest.Go(t, g.Run)
	kvstoretest.Go(t, w.Run)
	rows := func(n int) {
		t.Helper()
		kvstoretest.Eventually(t, func() string {
			if table.Len() != n || !w.Status().Connected {
				return "rows or connection are missing"
			}
			return ""
		})
	}
	rows(1)
	put(65536 + 2)
	rows(2)
	if st := w.Status(); member.opened.Load() == 0 || st.Lists != 1 || g.Status().Hold.Holding || g.Status().Lineage == kvstore.ContinuityBroken {
		t.Errorf("%d old answers; %+v, %+v", member.opened.Load(), st, g.Status())
	}
}
