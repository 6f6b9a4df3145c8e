// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
)

// Bounds of what goes into one transaction. etcd takes 128 operations and 1.5 MiB; an operation
// repeats its labels up to six times.
const (
	batchOps    = 32
	batchLabels = 64 << 10
)

// batch gathers transactions of several callers into one request each time: a store spends far more
// on a request than on what is in it. Each keeps its own conditions and outcome.
//
// Conditions are all judged before anything is written, so two in one request do not see each
// other: they must not write the same key.
type batch struct {
	client   *kvstore.Client
	requests chan *batchRequest
	// late is called with the labels of a transaction that ended after its caller had gone.
	late func(text string)
	// doubt is called with the labels of a transaction of which nobody knows whether it was applied,
	// or will be.
	doubt func(text string)
}

type batchRequest struct {
	text   string      // the label string it is about
	op     clientv3.Op // a transaction
	answer chan batchAnswer
	gone   atomic.Bool // the caller does not wait any more
}

type batchAnswer struct {
	resp *pb.TxnResponse
	err  error
}

func newBatch(client *kvstore.Client, late, doubt func(text string)) *batch {
	return &batch{client: client, requests: make(chan *batchRequest), late: late, doubt: doubt}
}

// txn commits one transaction about a label string. It waits for run. After an error it may still be
// committed, as with any request.
func (b *batch) txn(ctx context.Context, text string, cmps []clientv3.Cmp, then, otherwise []clientv3.Op) (*pb.TxnResponse, error) {
	r := &batchRequest{text: text, op: clientv3.OpTxn(cmps, then, otherwise), answer: make(chan batchAnswer, 1)}
	select {
	case b.requests <- r:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case a := <-r.answer:
		return a.resp, a.err
	case <-ctx.Done():
	}
	r.gone.Store(true)
	select {
	case a := <-r.answer: // it came between the two
		return a.resp, a.err
	default:
		return nil, ctx.Err()
	}
}

// run commits what callers bring until ctx ends. While a request is under way the next one gathers;
// two at once were measured to be slower, since each is smaller.
func (b *batch) run(ctx context.Context) error {
	for {
		var first *batchRequest
		select {
		case first = <-b.requests:
		case <-ctx.Done():
			return ctx.Err()
		}
		b.commit(ctx, b.gather(first))
	}
}

// gather takes the requests that wait already.
func (b *batch) gather(first *batchRequest) []*batchRequest {
	all, size := []*batchRequest{first}, len(first.text)
	for len(all) < batchOps && size < batchLabels {
		select {
		case r := <-b.requests:
			all = append(all, r)
			size += len(r.text)
		default:
			return all
		}
	}
	return all
}

func (b *batch) commit(ctx context.Context, all []*batchRequest) {
	ops := make([]clientv3.Op, len(all))
	for i, r := range all {
		ops[i] = r.op
	}
	resp, err := b.client.Txn(ctx).Then(ops...).Commit()
	for i, r := range all {
		a := batchAnswer{err: err}
		if err == nil {
			a.resp = resp.Responses[i].GetResponseTxn()
		}
		if err != nil {
			b.doubt(r.text)
		}
		r.answer <- a
		if r.gone.Load() {
			b.late(r.text)
		}
	}
}
