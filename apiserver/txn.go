// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"bytes"
	"cmp"
	"context"
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/weft-net/weft/apiserver/cache"
)

// maxTxnOps is etcd's default.
const maxTxnOps = 128

// One transaction may look at so many keys, whether or not it is told of them, and its answer may have
// so many bytes: the answer is made before it is known how large it is, transactions may be nested,
// and a hundred reads of everything are no transaction.
const (
	maxTxnKeys  = 1 << 20
	maxTxnBytes = 128 << 20
)

// Txn answers a transaction that compares and reads, all of it at one revision.
func (s kvServer) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	if err := checkTxn(r, maxTxnOps); err != nil {
		return nil, err
	}
	u, err := s.requester(ctx)
	if err != nil {
		return nil, err
	}
	if !allowTxn(u.rights, r) {
		return nil, rpctypes.ErrGRPCPermissionDenied
	}
	var (
		gen  *cache.Generation
		resp *pb.TxnResponse
	)
	err = s.at(ctx, serializable(r), func(g *cache.Generation, sn cache.Snapshot) (err error) {
		gen = g
		t := newTxn(ctx, sn)
		resp = t.run(r)
		return t.err
	})
	if err != nil {
		return nil, err
	}
	resp.Header = &pb.ResponseHeader{Revision: resp.Header.GetRevision()}
	s.fill(resp.Header, gen)
	if err := s.account(ctx, u, proto.Size(resp)); err != nil {
		return nil, err
	}
	return resp, nil
}

// txn is one transaction on a snapshot. The first error stays.
type txn struct {
	ctx context.Context // the call's
	sn  cache.Snapshot
	err error

	keys, bytes int64 // that may still be read
}

func newTxn(ctx context.Context, sn cache.Snapshot) *txn {
	return &txn{ctx: ctx, sn: sn, keys: maxTxnKeys, bytes: maxTxnBytes}
}

// run decides which branch is taken and reads it. As with etcd only the outermost answer has a
// header, filled by the caller, and those of ranges tell the revision.
func (t *txn) run(r *pb.TxnRequest) *pb.TxnResponse {
	out := &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: t.holds(r.Compare)}
	ops := r.Success
	if !out.Succeeded {
		ops = r.Failure
	}
	for _, op := range ops {
		if t.err != nil {
			return out
		}
		res := &pb.ResponseOp{}
		switch o := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			resp := t.read(o.RequestRange)
			for _, kv := range resp.GetKvs() {
				t.bytes -= int64(len(kv.Key)+len(kv.Value)) + 40
			}
			if t.err == nil && t.bytes < 0 {
				t.err = rpctypes.ErrGRPCRequestTooLarge
			}
			res.Response = &pb.ResponseOp_ResponseRange{ResponseRange: resp}
		case *pb.RequestOp_RequestTxn:
			resp := t.run(o.RequestTxn)
			resp.Header = &pb.ResponseHeader{}
			res.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: resp}
		}
		out.Responses = append(out.Responses, res)
	}
	out.Header.Revision = t.sn.Revision()
	return out
}

func (t *txn) read(r *pb.RangeRequest) *pb.RangeResponse {
	if t.err == nil && t.ctx.Err() != nil {
		t.err = status.FromContextError(t.ctx.Err()).Err()
	}
	if t.err != nil {
		return nil
	}
	resp, err := t.sn.Range(r)
	if t.keys -= 1 + resp.GetCount(); err == nil && t.keys < 0 {
		err = rpctypes.ErrGRPCRequestTooLarge
	}
	if r.Revision <= 0 && errors.As(err, new(*cache.CompactedError)) {
		err = errAgain // it was forgotten while it was read
	}
	t.err = err
	return resp
}

// holds reports whether all comparisons are true.
func (t *txn) holds(compares []*pb.Compare) bool {
	for _, c := range compares {
		resp := t.read(&pb.RangeRequest{Key: c.Key, RangeEnd: c.RangeEnd})
		kvs := resp.GetKvs()
		if len(kvs) == 0 {
			if c.Target == pb.Compare_VALUE {
				return false // there is no value that a missing key could be compared with
			}
			kvs = []*mvccpb.KeyValue{{}}
		}
		for _, kv := range kvs {
			if !holds(c, kv) {
				return false
			}
		}
	}
	return true
}

// holds reports whether a comparison is true of one key. A target without a value is compared with
// the zero value.
func holds(c *pb.Compare, kv *mvccpb.KeyValue) bool {
	var result int
	switch c.Target {
	case pb.Compare_VALUE:
		result = bytes.Compare(kv.Value, c.GetValue())
	case pb.Compare_CREATE:
		result = cmp.Compare(kv.CreateRevision, c.GetCreateRevision())
	case pb.Compare_MOD:
		result = cmp.Compare(kv.ModRevision, c.GetModRevision())
	case pb.Compare_VERSION:
		result = cmp.Compare(kv.Version, c.GetVersion())
	case pb.Compare_LEASE:
		result = cmp.Compare(kv.Lease, c.GetLease())
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return result == 0
	case pb.Compare_NOT_EQUAL:
		return result != 0
	case pb.Compare_GREATER:
		return result > 0
	case pb.Compare_LESS:
		return result < 0
	}
	return true
}

// checkTxn refuses what etcd refuses before it looks at the store.
func checkTxn(r *pb.TxnRequest, most int) error {
	n := max(len(r.Compare), len(r.Success), len(r.Failure))
	if n > most {
		return rpctypes.ErrGRPCTooManyOps
	}
	for _, c := range r.Compare {
		if len(c.Key) == 0 {
			return rpctypes.ErrGRPCEmptyKey
		}
	}
	for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			if err := checkOp(op, most-n); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkOp(op *pb.RequestOp, most int) error {
	switch o := op.Request.(type) {
	case *pb.RequestOp_RequestRange:
		return checkRange(o.RequestRange)
	case *pb.RequestOp_RequestTxn:
		return checkTxn(o.RequestTxn, most)
	case *pb.RequestOp_RequestPut:
		switch put := o.RequestPut; {
		case len(put.GetKey()) == 0:
			return rpctypes.ErrGRPCEmptyKey
		case put.IgnoreValue && len(put.Value) != 0:
			return rpctypes.ErrGRPCValueProvided
		case put.IgnoreLease && put.Lease != 0:
			return rpctypes.ErrGRPCLeaseProvided
		}
		return nil
	case *pb.RequestOp_RequestDeleteRange:
		if len(o.RequestDeleteRange.GetKey()) == 0 {
			return rpctypes.ErrGRPCEmptyKey
		}
		return nil
	}
	return rpctypes.ErrGRPCKeyNotFound
}

// allowTxn reports whether a user with rights may do all of a transaction, whichever branch it takes.
func allowTxn(r rights, t *pb.TxnRequest) bool {
	for _, c := range t.Compare {
		if !r.allow(c.Key, c.RangeEnd) {
			return false
		}
	}
	for _, ops := range [][]*pb.RequestOp{t.Success, t.Failure} {
		for _, op := range ops {
			switch o := op.Request.(type) {
			case *pb.RequestOp_RequestRange:
				if !r.allow(o.RequestRange.Key, o.RequestRange.RangeEnd) {
					return false
				}
			case *pb.RequestOp_RequestTxn:
				if !allowTxn(r, o.RequestTxn) {
					return false
				}
			default:
				return false
			}
		}
	}
	return true
}

// serializable reports whether no read of a transaction has to be of the newest state. One that only
// compares has to: an etcd answers it from its own state, which has at least what it acknowledged itself.
func serializable(t *pb.TxnRequest) bool {
	if len(t.Success)+len(t.Failure) == 0 {
		return false
	}
	for _, ops := range [][]*pb.RequestOp{t.Success, t.Failure} {
		for _, op := range ops {
			if r := op.GetRequestRange(); r == nil || !r.Serializable {
				return false
			}
		}
	}
	return true
}
