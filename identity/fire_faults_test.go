// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"math/rand/v2"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/kvstore"
)

// errLost is what a client says of a request whose answer it did not get.
var errLost = status.Error(codes.Unavailable, "the answer was lost")

// chaos stands before every request that a client makes of the store, and decides what becomes of it.
type chaos struct {
	mu     sync.Mutex
	rng    *rand.Rand
	calm   bool          // nothing happens any more
	frozen chan struct{} // not nil: requests wait until it is closed, whatever their context says
	crash  func()        // not nil: called before or after the request countdown requests ahead
	count  int
	done   func()   // not nil: called when a deletion is done, before its answer
	delay  bool     // the next transaction arrives late
	late   []func() // requests that are still under way, though their callers have given up
}

// fate is what becomes of one request.
type fate int

const (
	passes       fate = iota
	neverArrives      // the caller sees an error, the store nothing
	answerIsLost      // the store does it, the caller sees an error
	arrivesLate       // the caller sees an error, and some time later the store does it
)

// next waits while the client is frozen and draws what becomes of the next request.
func (c *chaos) next(txn bool) fate {
	for {
		c.mu.Lock()
		gate := c.frozen
		if gate == nil {
			break
		}
		c.mu.Unlock()
		<-gate
	}
	defer c.mu.Unlock()
	if c.delay && txn {
		c.delay = false
		return arrivesLate
	}
	if c.calm {
		return passes
	}
	if c.crash != nil {
		if c.count--; c.count <= 0 {
			c.crash()
			c.crash = nil
			if c.rng.IntN(2) == 0 {
				return neverArrives
			}
			return answerIsLost
		}
	}
	switch n := c.rng.IntN(100); {
	case n < 2:
		return neverArrives
	case n < 5:
		return answerIsLost
	case n < 7:
		return arrivesLate
	}
	return passes
}

// crashAfter calls crash at the n-th request from now, which is done or not, and never answered.
func (c *chaos) crashAfter(n int, crash func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.crash == nil {
		c.count, c.crash = n, crash
	}
}

// setCalm ends or resumes faults, other than freezes.
func (c *chaos) setCalm(calm bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calm, c.crash = calm, nil
}

// freeze stops the client like a process that is stopped, until thaw is called.
func (c *chaos) freeze() (thaw func()) {
	gate := make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = gate
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.frozen = nil
		close(gate)
	}
}

// delayTxn lets the next transaction arrive when deliver is called.
func (c *chaos) delayTxn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.delay = true
}

// deliver lets all arrive that is late.
func (c *chaos) deliver() {
	c.mu.Lock()
	late := c.late
	c.late = nil
	c.mu.Unlock()
	for _, f := range late {
		f()
	}
}

// through makes one request of the store, or not.
func through[R any](c *chaos, ctx context.Context, txn bool, request func(context.Context) (R, error)) (R, error) {
	var none R
	switch c.next(txn) {
	case neverArrives:
		return none, errLost
	case answerIsLost:
		_, _ = request(context.WithoutCancel(ctx))
		return none, errLost
	case arrivesLate:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.late = append(c.late, func() { _, _ = request(context.Background()) })
		return none, errLost
	}
	return request(ctx)
}

// chaosKV is a client's view of the store through chaos.
type chaosKV struct {
	clientv3.KV
	chaos *chaos
}

func (k chaosKV) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	return through(k.chaos, ctx, false, func(ctx context.Context) (*clientv3.GetResponse, error) { return k.KV.Get(ctx, key, opts...) })
}

func (k chaosKV) Put(ctx context.Context, key, v string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	return through(k.chaos, ctx, false, func(ctx context.Context) (*clientv3.PutResponse, error) { return k.KV.Put(ctx, key, v, opts...) })
}

func (k chaosKV) Delete(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.DeleteResponse, error) {
	return through(k.chaos, ctx, false, func(ctx context.Context) (*clientv3.DeleteResponse, error) {
		if k.chaos.done != nil {
			defer k.chaos.done()
		}
		return k.KV.Delete(ctx, key, opts...)
	})
}

func (k chaosKV) Txn(ctx context.Context) clientv3.Txn {
	return kvstore.NewTxn(func(fill func(clientv3.Txn) clientv3.Txn) (*clientv3.TxnResponse, error) {
		return through(k.chaos, ctx, true, func(ctx context.Context) (*clientv3.TxnResponse, error) { return fill(k.KV.Txn(ctx)).Commit() })
	})
}
