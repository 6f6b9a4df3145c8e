// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
)

const (
	// reseedRows is how many rows one transaction of Reseed writes: each is a transaction in it, and
	// etcd takes 128 operations.
	reseedRows = 60
	// reseedAtOnce is how many of them are under way: enough that the etcd does not wait for us.
	reseedAtOnce = 4
)

// Reseed decides that what is held is the truth: it writes every held row that the store does not
// have. A node's rows hang on a lease of the limit, until their owner takes them over; rows of the
// cluster hang on none, as ever. It returns how many it wrote. Rows that this client may not write are
// left out, the others are written all the same; the error then says how many they are, and is an
// EndpointError of ReasonUnauthorised.
func (g *Guard) Reseed(ctx context.Context) (written int, err error) {
	if g.cfg.ReadOnly {
		return 0, fmt.Errorf("reseed: %w", ErrReadOnly)
	}
	c, mass := g.client(), g.massive()
	var rows []KV
	for _, m := range g.membersNow() {
		kvs, err := m.values(func(h heldGroup) bool { return !h.settling(mass) })
		if err != nil {
			return 0, fmt.Errorf("reseed: %w", err)
		}
		rows = append(rows, kvs...)
	}
	if len(rows) == 0 {
		return 0, nil
	}
	var lease *clientv3.LeaseGrantResponse
	err = c.do(ctx, "take a lease", func(ctx context.Context) (err error) {
		lease, err = c.etcd.Grant(ctx, int64(max(time.Second, g.cfg.Limit)/time.Second))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("reseed: %w", err)
	}
	r := reseed{client: c, lease: lease.ID}
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(reseedAtOnce)
	for from := 0; from < len(rows) && ctx.Err() == nil; {
		to, size := from, 0
		for ; to < len(rows) && to-from < reseedRows && size < maxBatchBytes/2; to++ {
			size += len(rows[to].Key) + len(rows[to].Value)
		}
		batch := rows[from:to]
		work.Go(func() error { return r.write(ctx, batch) })
		from = to
	}
	err = work.Wait()
	switch {
	case err != nil:
		return r.written, fmt.Errorf("reseed: %w", err)
	case r.refused > 0:
		return r.written, fmt.Errorf("reseed: %d of %d rows are not this client's to write, their owners have to: %w", r.refused, len(rows), r.why)
	}
	return r.written, nil
}

// reseed writes rows that a store may have by now.
type reseed struct {
	client *Client
	lease  clientv3.LeaseID

	mu      sync.Mutex
	written int
	refused int   // rows that the store did not take from this client
	why     error // for the first of them
}

// write writes the rows that are not there. A store that refuses one refuses a whole transaction, so
// its rows are then tried one by one.
func (r *reseed) write(ctx context.Context, rows []KV) error {
	ops := make([]clientv3.Op, len(rows))
	for i, kv := range rows {
		lease := r.lease
		if clusterOwned(kv.Key) {
			lease = clientv3.NoLease
		}
		ops[i] = clientv3.OpTxn(
			[]clientv3.Cmp{clientv3.Compare(clientv3.Version(kv.Key), "=", 0)},
			[]clientv3.Op{clientv3.OpPut(kv.Key, string(kv.Value), clientv3.WithLease(lease))}, nil)
	}
	resp, err := r.client.Txn(ctx).Then(ops...).Commit()
	var denied *EndpointError
	switch {
	case err == nil:
		r.count(resp)
		return nil
	case !errors.As(err, &denied) || denied.Reason != ReasonUnauthorised:
		return err
	case len(rows) == 1:
		r.refuse(err)
		return nil
	}
	for i := range rows {
		if err := r.write(ctx, rows[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (r *reseed) count(resp *clientv3.TxnResponse) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range resp.Responses {
		if one.GetResponseTxn().Succeeded {
			r.written++
		}
	}
}

func (r *reseed) refuse(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused++
	if r.why == nil {
		r.why = err
	}
}
