// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Txn begins a transaction, which is sent under the client's limits:
// Txn(ctx).If(…).Then(…).Else(…).Commit().
func (c *Client) Txn(ctx context.Context) clientv3.Txn {
	return NewTxn(func(fill func(clientv3.Txn) clientv3.Txn) (resp *clientv3.TxnResponse, err error) {
		err = c.do(ctx, "transaction", func(ctx context.Context) (err error) {
			resp, err = fill(c.etcd.Txn(ctx)).Commit()
			return err
		})
		return resp, err
	})
}

// NewTxn gathers a transaction and calls commit when it is whole, with what fills one of the client
// library with it: as often as it is sent.
func NewTxn(commit func(fill func(clientv3.Txn) clientv3.Txn) (*clientv3.TxnResponse, error)) clientv3.Txn {
	return &txn{commit: commit}
}

// txn gathers a transaction.
type txn struct {
	commit        func(fill func(clientv3.Txn) clientv3.Txn) (*clientv3.TxnResponse, error)
	cmps          []clientv3.Cmp
	thens, others []clientv3.Op
}

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
	return t.commit(func(to clientv3.Txn) clientv3.Txn { return to.If(t.cmps...).Then(t.thens...).Else(t.others...) })
}
