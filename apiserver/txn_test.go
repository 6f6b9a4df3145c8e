// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/apiserver/cache"
)

// TestTxn_IsBounded nests reads of everything: what they look at and what they answer counts all
// together, and an end of the call ends them.
func TestTxn_IsBounded(t *testing.T) {
	var kvs []*mvccpb.KeyValue
	for i := range 1000 {
		kvs = append(kvs, &mvccpb.KeyValue{
			Key: fmt.Appendf(nil, "a%04d", i), Value: make([]byte, 1000), CreateRevision: 2, ModRevision: 2, Version: 1,
		})
	}
	store := cache.NewStore(cache.History{}, 5, kvs)
	// all is 60 times 60 reads of everything.
	all := func(r *pb.RangeRequest) *pb.TxnRequest {
		r.Key, r.RangeEnd = []byte("a"), []byte("b")
		inner, outer := &pb.TxnRequest{}, &pb.TxnRequest{}
		for range 60 {
			inner.Success = append(inner.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}})
			outer.Success = append(outer.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: inner}})
		}
		return outer
	}
	compares := &pb.TxnRequest{}
	for range 60 {
		compares.Compare = append(compares.Compare, &pb.Compare{
			Key: []byte("a"), RangeEnd: []byte("b"), Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{Version: 1},
		})
	}
	many := &pb.TxnRequest{}
	for range 60 {
		many.Success = append(many.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: compares}})
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tt := range map[string]struct {
		ctx  context.Context
		r    *pb.TxnRequest
		want error
	}{
		"counts":   {t.Context(), all(&pb.RangeRequest{CountOnly: true}), rpctypes.ErrGRPCRequestTooLarge},
		"filters":  {t.Context(), all(&pb.RangeRequest{MinModRevision: 9}), rpctypes.ErrGRPCRequestTooLarge},
		"bytes":    {t.Context(), all(&pb.RangeRequest{}), rpctypes.ErrGRPCRequestTooLarge},
		"compares": {t.Context(), many, rpctypes.ErrGRPCRequestTooLarge},
		"few":      {t.Context(), compares, nil},
		"ended":    {ended, compares, status.Error(codes.Canceled, context.Canceled.Error())},
	} {
		if err := checkTxn(tt.r, maxTxnOps); err != nil {
			t.Errorf("%s: etcd refuses it: %v", name, err)
		}
		tx := newTxn(tt.ctx, store.Snapshot())
		tx.run(tt.r)
		if fmt.Sprint(tx.err) != fmt.Sprint(tt.want) {
			t.Errorf("%s: %v, want %v", name, tx.err, tt.want)
		}
		if tt.want != nil && tx.keys < -1001 {
			t.Errorf("%s: went on for %d keys", name, -tx.keys)
		}
	}
}

// What a transaction answers from memory is only what each of its reads said may be old.
func TestTxn_Serializable(t *testing.T) {
	read := func(serializable bool) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k"), Serializable: serializable}}}
	}
	nested := &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{}}}
	for name, test := range map[string]struct {
		req  *pb.TxnRequest
		want bool
	}{
		"nothing":          {&pb.TxnRequest{}, false},
		"a comparison":     {&pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("k")}}}, false},
		"all may be old":   {&pb.TxnRequest{Success: []*pb.RequestOp{read(true)}, Failure: []*pb.RequestOp{read(true)}}, true},
		"one may not":      {&pb.TxnRequest{Success: []*pb.RequestOp{read(true), read(false)}}, false},
		"one may not else": {&pb.TxnRequest{Success: []*pb.RequestOp{read(true)}, Failure: []*pb.RequestOp{read(false)}}, false},
		"a transaction":    {&pb.TxnRequest{Success: []*pb.RequestOp{read(true), nested}}, false},
	} {
		if got := serializable(test.req); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
