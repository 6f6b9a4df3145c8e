// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/weft-net/weft/kvstore/schema"
)

// lockTimeout bounds the wait for a lock; whoever has it dies of its lease long before.
const lockTimeout = time.Minute

// obtainLocked is a trial in the way of Cilium's allocators: it queues for the lock of the labels
// and works while it has it. What compares a lock elsewhere compares here that the lock is ours.
func (a *Allocator) obtainLocked(ctx context.Context, t trial) (_ ID, err error) {
	a.count(func(s *Stats) { s.Locked++ })
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	// A lease of its own: the node's is far too long for a lock, and must not end with one.
	session, err := concurrency.NewSession(a.client.Etcd(),
		concurrency.WithContext(ctx), concurrency.WithTTL(max(1, int(a.cfg.LockTTL/time.Second))))
	if err != nil {
		return Unknown, fmt.Errorf("lock lease: %w", err)
	}
	defer func() {
		// Closing revokes the lease, which removes the lock key too. The session's own Close uses its
		// context, which may have ended.
		session.Orphan()
		rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if _, rerr := a.client.Etcd().Revoke(rctx, session.Lease()); rerr != nil && err == nil {
			a.failed(fmt.Errorf("revoke lock lease: %w", rerr)) // it ends by itself
		}
	}()
	mutex := concurrency.NewMutex(session, schema.IdentityLockPath(t.text))
	if err := mutex.Lock(ctx); err != nil {
		return Unknown, fmt.Errorf("lock: %w", err)
	}
	t.guard = []clientv3.Cmp{mutex.IsOwner()}
	return t.run(ctx)
}
