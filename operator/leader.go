// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// electionKey is where the candidates of a cluster stand; the oldest leads.
const electionKey = schema.ElectionsPrefix + "operator"

// elect waits until this candidate leads, calls lead with a context that ends with the leadership,
// and steps back when lead returns. Two leaders at once are possible for a moment when a leader was
// frozen for longer than its lease: all work of a leader is idempotent or guarded by a transaction.
func elect(ctx context.Context, client *kvstore.Client, cfg Config, lead func(context.Context) error) error {
	session, err := concurrency.NewSession(client.Etcd(), concurrency.WithTTL(int(cfg.LeaderTTL/time.Second)), concurrency.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("election: %w", err)
	}
	defer func() {
		// The next leader need not wait for the lease, if the store can be reached.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.LeaderTTL)
		defer cancel()
		session.Orphan()
		client.Etcd().Revoke(ctx, session.Lease()) //nolint:errcheck // it expires
	}()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	defer func() { <-done }()
	inner, end := context.WithCancel(ctx)
	defer end()
	go func() {
		defer close(done)
		select {
		case <-session.Done():
			cancel(fmt.Errorf("election: the lease of %v is lost", cfg.LeaderTTL))
		case <-inner.Done():
		}
	}()
	election := concurrency.NewElection(session, electionKey)
	if err := election.Campaign(inner, cfg.Name); err != nil {
		return fmt.Errorf("election: %w", err)
	}
	if err := lead(inner); err != nil {
		return err
	}
	return context.Cause(ctx)
}
