// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// maxBatchBytes keeps a transaction under etcd's request limit of 1.5 MiB.
const maxBatchBytes = 1 << 20

// batch is one transaction.
type batch[K comparable, V any] struct {
	items []*item[K, V] // nil: rows of an earlier life are deleted
	ops   []clientv3.Op
	puts  []KV
	dels  []string
	keys  map[string]*item[K, V]
	bytes int

	resp *clientv3.TxnResponse
	err  error
}

func newBatch[K comparable, V any]() *batch[K, V] {
	return &batch[K, V]{keys: map[string]*item[K, V]{}}
}

// flushAtOnce is how many transactions are under way at the same time: while the store works on one, the
// next is made. They have no row and no key in common.
const flushAtOnce = 4

// flush sends transactions if there is something to send. more says that there may be more to
// do at once; else next is when to look again, zero for not before something changes. complete says that
// the table is synced and that all of it was taken over: only then what is not wanted is stale.
func (s *Store[K, V]) flush(ctx context.Context, lease Lease, complete bool) (next time.Time, more bool) {
	if time.Now().Before(s.pauseUntil) {
		return s.pauseUntil, false
	}
	if s.cfg.Guard != nil {
		holding, _ := s.cfg.Guard.Holding()
		complete = complete && !holding
	}
	s.mu.Lock()
	batches, next := s.collectLocked(lease.ID)
	if len(batches) == 0 {
		b := newBatch[K, V]()
		switch {
		case complete:
			s.collectStaleLocked(b)
		case s.cfg.Guard != nil && len(s.stale) > 0 && next.IsZero():
			next = time.Now().Add(s.cfg.MaxBackoff) // the hold may be over
		}
		if len(b.ops) > 0 {
			batches = append(batches, b)
		}
	}
	s.mu.Unlock()
	if len(batches) == 0 {
		return next, false
	}
	s.commitAll(ctx, batches)
	for _, b := range batches {
		if b.err == nil {
			s.committed(b, b.resp, lease.ID)
			s.pause.reset()
		}
	}
	for _, b := range batches {
		if b.err != nil && ctx.Err() == nil {
			s.failed(ctx, b, lease)
		}
	}
	return time.Time{}, ctx.Err() == nil
}

// commitAll sends transactions, the last of them on this goroutine.
func (s *Store[K, V]) commitAll(ctx context.Context, batches []*batch[K, V]) {
	var wg sync.WaitGroup
	defer wg.Wait()
	last := len(batches) - 1
	for _, b := range batches[:last] {
		wg.Go(func() { b.resp, b.err = s.commit(ctx, b) })
	}
	batches[last].resp, batches[last].err = s.commit(ctx, batches[last])
}

// failed decides what becomes of a transaction that failed.
func (s *Store[K, V]) failed(ctx context.Context, b *batch[K, V], lease Lease) {
	err := fmt.Errorf("publish: %w", b.err)
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		s.fail(b, err, time.Time{})
		s.sess.Lost(lease.Generation)
	case transient(err) || explained(err) || errors.Is(err, ErrFenced):
		if !time.Now().Before(s.pauseUntil) { // else another one of now failed too
			s.pauseUntil = time.Now().Add(s.pause.delay())
		}
		s.fail(b, err, s.pauseUntil)
	case len(b.items) > 1:
		// One row may be what is refused; the others must not wait for it.
		for _, it := range b.items {
			s.single(ctx, it, lease)
		}
	default:
		s.fail(b, err, time.Time{})
		s.delayed(b)
	}
}

// commit sends a transaction behind the fence.
func (s *Store[K, V]) commit(ctx context.Context, b *batch[K, V]) (*clientv3.TxnResponse, error) {
	resp, err := s.c.Txn(ctx).If(s.cfg.Fence...).Then(b.ops...).Commit()
	if err == nil && !resp.Succeeded {
		err = ErrFenced
	}
	return resp, err
}

// explained reports whether an error is one of the endpoint and not of the request.
func explained(err error) bool {
	var e *EndpointError
	return errors.As(err, &e) && e.Reason != ReasonUnauthorised
}

// single sends the transaction of one row.
func (s *Store[K, V]) single(ctx context.Context, it *item[K, V], lease Lease) {
	s.mu.Lock()
	b := newBatch[K, V]()
	s.addLocked(b, it, lease.ID, []*batch[K, V]{b})
	s.mu.Unlock()
	if len(b.ops) == 0 {
		return
	}
	resp, err := s.commit(ctx, b)
	if err == nil {
		s.committed(b, resp, lease.ID)
		return
	}
	s.fail(b, fmt.Errorf("publish: %w", err), time.Time{})
	s.delayed(b)
}

// collectLocked gathers what is due. Rows that are as wanted leave the dirty set.
func (s *Store[K, V]) collectLocked(lease clientv3.LeaseID) ([]*batch[K, V], time.Time) {
	b := newBatch[K, V]()
	batches := []*batch[K, V]{b}
	var next time.Time
	now := time.Now()
	for it := range s.dirty {
		if it.want == nil && !it.deleted && !it.stuck && !now.Before(it.due) {
			s.claimLocked(it) // a key it needs may be free now
		}
		if now.Before(it.due) {
			if next.IsZero() || it.due.Before(next) {
				next = it.due
			}
			continue
		}
		if s.addLocked(b, it, lease, batches) {
			continue
		}
		if len(batches) == flushAtOnce {
			break
		}
		b = newBatch[K, V]()
		batches = append(batches, b)
		s.addLocked(b, it, lease, batches)
	}
	if len(b.ops) == 0 {
		batches = batches[:len(batches)-1]
	}
	return batches, next
}

// addLocked adds the writes a row needs, if it needs any, and returns false if they do not fit. A row
// whose keys one of all batches has already waits for the next time.
func (s *Store[K, V]) addLocked(b *batch[K, V], it *item[K, V], lease clientv3.LeaseID, all []*batch[K, V]) (fits bool) {
	var puts []KV
	var dels []string
	size := 0
	for key, value := range it.want {
		have, ok := s.actual[key]
		if it.over[key] || ok && bytes.Equal(have.Value, value) && have.Lease == lease {
			if _, ours := it.wrote[key]; ok && !ours && !it.over[key] && s.owns(key, value) {
				it.wrote[key] = nil // an earlier life of ours did: it goes with the row
			}
			continue
		}
		puts = append(puts, KV{Key: key, Value: value, Lease: lease})
		size += len(key) + len(value)
	}
	for key, attempt := range it.wrote {
		if _, wanted := it.want[key]; wanted || it.want == nil && !it.deleted {
			continue
		}
		if _, ok := s.actual[key]; !ok && attempt == nil {
			s.forgetLocked(it, key)
			continue
		}
		dels = append(dels, key)
		size += len(key)
	}
	if len(puts) == 0 && len(dels) == 0 {
		s.settleLocked(it)
		return true
	}
	if len(b.ops) > 0 && (len(b.ops)+len(puts)+len(dels) > s.cfg.MaxOps || b.bytes+size > maxBatchBytes) {
		return false
	}
	if s.cfg.DeleteAlone && len(b.ops) > 0 && (len(dels) > 0 || len(b.dels) > 0) {
		return false
	}
	for _, other := range all {
		for _, kv := range puts {
			if other.keys[kv.Key] != nil {
				return true
			}
		}
		for _, key := range dels {
			if other.keys[key] != nil {
				return true
			}
		}
	}
	for _, kv := range puts {
		b.ops = append(b.ops, clientv3.OpPut(kv.Key, string(kv.Value), clientv3.WithLease(kv.Lease)))
		b.keys[kv.Key] = it
	}
	for _, key := range dels {
		b.ops = append(b.ops, s.guardedLocked(it, key))
		b.keys[key] = it
	}
	b.puts, b.dels = append(b.puts, puts...), append(b.dels, dels...)
	b.items = append(b.items, it)
	b.bytes += size
	return true
}

// owns says whether a stored row is one that we, or an earlier life of ours, wrote.
func (s *Store[K, V]) owns(key string, value []byte) bool {
	for _, p := range s.parts {
		if strings.HasPrefix(key, p.prefix) {
			return p.owns(key, value)
		}
	}
	return false
}

// guardedLocked deletes a key only if it is still what this row wrote: the put that is known, or
// an attempt that had no answer.
func (s *Store[K, V]) guardedLocked(it *item[K, V], key string) clientv3.Op {
	have, known := s.actual[key]
	attempt := it.wrote[key]
	if !known {
		return guarded(clientv3.Compare(clientv3.Value(key), "=", string(attempt)), key)
	}
	byRevision := clientv3.Compare(clientv3.ModRevision(key), "=", have.ModRevision)
	if attempt == nil {
		return guarded(byRevision, key)
	}
	return guarded(byRevision, key, guarded(clientv3.Compare(clientv3.Value(key), "=", string(attempt)), key))
}

func guarded(guard clientv3.Cmp, key string, otherwise ...clientv3.Op) clientv3.Op {
	return clientv3.OpTxn([]clientv3.Cmp{guard}, []clientv3.Op{clientv3.OpDelete(key)}, otherwise)
}

// collectStaleLocked gathers deletions of rows of an earlier life.
func (s *Store[K, V]) collectStaleLocked(b *batch[K, V]) {
	for key, kv := range s.stale {
		if len(b.ops) >= s.cfg.MaxOps || s.cfg.DeleteAlone && len(b.ops) > 0 {
			return
		}
		b.ops = append(b.ops, guarded(clientv3.Compare(clientv3.ModRevision(key), "=", kv.ModRevision), key))
		b.dels = append(b.dels, key)
	}
}

// committed takes over what a transaction did.
func (s *Store[K, V]) committed(b *batch[K, V], resp *clientv3.TxnResponse, lease clientv3.LeaseID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.st.LastError = nil
	for _, kv := range b.puts {
		it := b.keys[kv.Key]
		kv.ModRevision, kv.Lease = resp.Header.Revision, lease
		s.actual[kv.Key] = kv
		it.wrote[kv.Key] = nil
		s.st.Written++
	}
	for _, key := range b.dels {
		s.st.Deleted++
		delete(s.stale, key)
		if it := b.keys[key]; it != nil {
			s.forgetLocked(it, key)
		}
	}
	for _, it := range b.items {
		it.at = time.Now()
		s.settleLocked(it)
	}
}

// settleLocked ends the work on a row that is stored as wanted.
func (s *Store[K, V]) settleLocked(it *item[K, V]) {
	delete(s.dirty, it)
	switch {
	case it.deleted && len(it.wrote) == 0:
		if s.rows[it.key] == it {
			delete(s.rows, it.key)
		}
		return
	case it.stuck, len(it.over) > 0, it.want == nil && !it.deleted:
		return // the error stays
	}
	it.done, it.attempts, it.err = true, 0, nil
}

// fail records an error of a transaction. What it would have put may be stored all the same.
func (s *Store[K, V]) fail(b *batch[K, V], err error, due time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked(err)
	for _, kv := range b.puts {
		if it := b.keys[kv.Key]; it.wrote[kv.Key] == nil {
			it.wrote[kv.Key] = kv.Value
		}
	}
	for _, it := range b.items {
		it.err, it.at, it.due = err, time.Now(), due
		it.attempts++
	}
}

// unpause ends the pause of all rows.
func (s *Store[K, V]) unpause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for it := range s.dirty {
		if it.due.Equal(s.pauseUntil) {
			it.due = time.Time{}
		}
	}
	s.pauseUntil = time.Time{}
	s.pause.reset()
}

// delayed gives each row of a refused transaction its own pause.
func (s *Store[K, V]) delayed(b *batch[K, V]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range b.items {
		it.due = time.Now().Add(s.delay(it.attempts))
	}
	if len(b.items) == 0 { // rows of an earlier life
		s.pauseUntil = time.Now().Add(s.cfg.MaxBackoff)
	}
}
