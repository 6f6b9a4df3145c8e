// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
)

const (
	// reseedRows is how many rows one transaction of Reseed writes; etcd takes 128 operations.
	reseedRows = 100
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
	total := 0
	var batches [][]KV
	for _, m := range g.membersNow() {
		rows, err := m.values(func(h heldGroup) bool { return !h.settling(mass) })
		if err != nil {
			return 0, fmt.Errorf("reseed: %w", err)
		}
		total += len(rows)
		batches = append(batches, inBatches(rows)...)
	}
	if total == 0 {
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
	for _, batch := range batches {
		if ctx.Err() != nil {
			break
		}
		work.Go(func() error { return r.write(ctx, batch) })
	}
	err = work.Wait()
	switch {
	case err != nil:
		return r.written, fmt.Errorf("reseed: %w", err)
	case r.refused > 0:
		return r.written, fmt.Errorf("reseed: %d of %d rows are not this client's to write, their owners have to: %w", r.refused, total, r.why)
	}
	return r.written, nil
}

// inBatches puts rows of one kind in order and divides them into what a transaction takes.
func inBatches(rows []KV) (batches [][]KV) {
	slices.SortFunc(rows, func(a, b KV) int { return strings.Compare(a.Key, b.Key) })
	for from := 0; from < len(rows); {
		to, size := from, 0
		for ; to < len(rows) && to-from < reseedRows && size < maxBatchBytes/2; to++ {
			size += len(rows[to].Key) + len(rows[to].Value)
		}
		batches = append(batches, rows[from:to])
		from = to
	}
	return batches
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

// write writes the rows that are not there; they are of one kind and in order. Mostly none is there:
// then one comparison of all that they span, and bare puts, are half the work for the store. A store that
// refuses one row refuses a whole transaction, so they are then tried one by one.
func (r *reseed) write(ctx context.Context, rows []KV) error {
	puts := make([]clientv3.Op, len(rows))
	for i, kv := range rows {
		lease := r.lease
		if clusterOwned(kv.Key) {
			lease = clientv3.NoLease
		}
		puts[i] = clientv3.OpPut(kv.Key, string(kv.Value), clientv3.WithLease(lease))
	}
	none := clientv3.Compare(clientv3.Version(rows[0].Key), "=", 0).WithRange(rows[len(rows)-1].Key + "\x00")
	resp, err := r.client.Txn(ctx).If(none).Then(puts...).Commit()
	if err == nil && !resp.Succeeded && len(rows) > 1 {
		resp, err = r.missing(ctx, rows, puts)
	}
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

// missing writes those of the rows that are not there, where something is.
func (r *reseed) missing(ctx context.Context, rows []KV, puts []clientv3.Op) (*clientv3.TxnResponse, error) {
	ops := make([]clientv3.Op, len(rows))
	for i, kv := range rows {
		ops[i] = clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Version(kv.Key), "=", 0)}, puts[i:i+1], nil)
	}
	return r.client.Txn(ctx).Then(ops...).Commit()
}

// count counts the puts of a transaction.
func (r *reseed) count(resp *clientv3.TxnResponse) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range resp.Responses {
		if one.GetResponsePut() != nil || one.GetResponseTxn().GetSucceeded() {
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
