// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// question is one request of those that the etcd and the server are to answer alike.
type question struct {
	req proto.Message
	ask func(context.Context, *side) (proto.Message, error)
}

// side is one of the two that are asked.
type side struct {
	conn *grpc.ClientConn
	kv   pb.KVServer // what answers behind the connection
	as   *peer.Peer  // who asks it; nil: nobody in particular
}

// direct is what answers behind the connection, and a context to ask it with.
func (s *side) direct(ctx context.Context) (context.Context, pb.KVServer) {
	if s.as != nil {
		ctx = peer.NewContext(ctx, s.as)
	}
	return ctx, s.kv
}

func rangeOf(r *pb.RangeRequest, wire bool) question {
	return unary(r, wire, pb.KVClient.Range, pb.KVServer.Range)
}

func txnOf(r *pb.TxnRequest, wire bool) question {
	return unary(r, wire, pb.KVClient.Txn, pb.KVServer.Txn)
}

// unary is a question with one answer, put over the wire or to what answers behind it.
func unary[Req, Resp proto.Message](
	r Req, wire bool,
	over func(pb.KVClient, context.Context, Req, ...grpc.CallOption) (Resp, error),
	direct func(pb.KVServer, context.Context, Req) (Resp, error),
) question {
	return question{r, func(ctx context.Context, s *side) (proto.Message, error) {
		if wire {
			return over(pb.NewKVClient(s.conn), ctx, r)
		}
		ctx, kv := s.direct(ctx)
		return direct(kv, ctx, r)
	}}
}

// streamOf is a streamed read, whose answer is what its messages make together.
func streamOf(r *pb.RangeRequest) question {
	return question{r, func(ctx context.Context, s *side) (proto.Message, error) {
		st, err := pb.NewKVClient(s.conn).RangeStream(ctx, r)
		if err != nil {
			return nil, err
		}
		out := &pb.RangeResponse{}
		for {
			m, err := st.Recv()
			if errors.Is(err, io.EOF) {
				return out, nil
			}
			if err != nil {
				return nil, err
			}
			kvs := append(out.Kvs, m.RangeResponse.Kvs...)
			out = m.RangeResponse
			out.Kvs = kvs
		}
	}}
}

// ask takes note of a question. It is put before anything is changed.
func (o *oracle) ask(q question) { o.asked = append(o.asked, q) }

// askedAtOnce is how many questions are on their way to both.
const askedAtOnce = 8

// compare puts all questions and compares the answers.
func (o *oracle) compare(t *testing.T) {
	t.Helper()
	asked := o.asked
	o.asked = nil
	// Reads that may be old are of the newest revision behind one that may not.
	newest := rangeOf(&pb.RangeRequest{Key: []byte("cilium/state/00"), CountOnly: true}, false)
	if _, err := newest.ask(t.Context(), o.api); err != nil {
		t.Fatal(err)
	}
	type answers struct {
		want, got       proto.Message
		wantErr, gotErr error
	}
	all := make([]answers, len(asked))
	var (
		g    errgroup.Group
		next atomic.Int64
	)
	for range min(askedAtOnce, len(asked)) {
		g.Go(func() error {
			for i := next.Add(1) - 1; i < int64(len(asked)); i = next.Add(1) - 1 {
				a, q := &all[i], asked[i]
				a.want, a.wantErr = q.ask(t.Context(), o.etcd)
				a.got, a.gotErr = q.ask(t.Context(), o.api)
			}
			return nil
		})
	}
	_ = g.Wait()
	for i, a := range all {
		same(t, asked[i].req, a.want, a.got, a.wantErr, a.gotErr)
	}
}

// same compares two answers to a request. A part of the history that the etcd forgot may still be
// known by the server, which then looks at what comes behind it in a transaction.
func same(t *testing.T, req, want, got proto.Message, wantErr, gotErr error) {
	t.Helper()
	if errors.Is(rpctypes.Error(wantErr), rpctypes.ErrCompacted) &&
		(gotErr == nil || errors.Is(rpctypes.Error(gotErr), rpctypes.ErrFutureRev)) {
		return
	}
	if fmt.Sprint(status.Convert(wantErr)) != fmt.Sprint(status.Convert(gotErr)) {
		t.Fatalf("%v\netcd:   %v\nserver: %v", req, wantErr, gotErr)
	}
	if wantErr != nil {
		return
	}
	type headed interface{ GetHeader() *pb.ResponseHeader }
	for _, m := range []proto.Message{want, got} {
		if h := m.(headed).GetHeader(); h != nil {
			h.ClusterId, h.MemberId, h.RaftTerm = 0, 0, 0
		}
	}
	a, err := proto.MarshalOptions{Deterministic: true}.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if string(a) != string(b) {
		t.Fatalf("%v (-etcd +server):\n%s", req, cmp.Diff(want, got, protocmp.Transform()))
	}
}
