// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// txn gathers a transaction and sends it under the client's limits.
type txn struct {
	c             *Client
	ctx           context.Context // of one call chain, as in the client library
	cmps          []clientv3.Cmp
	thens, others []clientv3.Op
}

// Txn begins a transaction: Txn(ctx).If(…).Then(…).Else(…).Commit().
func (c *Client) Txn(ctx context.Context) clientv3.Txn { return &txn{c: c, ctx: ctx} }

func (t *txn) If(cs ...clientv3.Cmp) clientv3.Txn {
	t.cmps = append(t.cmps, cs...)
	return t
}

func (t *txn) Then(ops ...clientv3.Op) clientv3.Txn {
	t.thens = append(t.thens, ops...)
	return t
}

func (t *txn) Else(ops ...clientv3.Op) clientv3.Txn {
	t.others = append(t.others, ops...)
	return t
}

func (t *txn) Commit() (*clientv3.TxnResponse, error) {
	var resp *clientv3.TxnResponse
	err := t.c.do(t.ctx, "transaction", func(ctx context.Context) (err error) {
		resp, err = t.c.etcd.Txn(ctx).If(t.cmps...).Then(t.thens...).Else(t.others...).Commit()
		return err
	})
	return resp, err
}
