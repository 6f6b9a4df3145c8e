// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// compactor drops history of the store that is older than Keep. Without compaction an etcd grows
// until its quota and then refuses every write; where somebody else compacts already, it does
// nothing.
type compactor struct {
	client *kvstore.Client
	admin  *kvstore.Client // nil: client
	cfg    Config
	log    *slog.Logger
	fence  fence
	done   prometheus.Counter

	seen []sample // oldest first
}

// sample is the store's revision at a time of ours.
type sample struct {
	at       time.Time
	revision int64
}

// Run compacts until ctx ends. A store that cannot be reached is tried again at the next turn.
func (c *compactor) Run(ctx context.Context) error {
	return every(ctx, c.cfg.Compact, func() {
		if err := c.turn(ctx, time.Now()); err != nil && ctx.Err() == nil {
			c.log.Warn("store not compacted", "reason", err.Error())
		}
	})
}

// turn notes the present revision and compacts to the one of Keep ago, if it is known.
func (c *compactor) turn(ctx context.Context, now time.Time) error {
	res, err := c.client.Etcd().Get(ctx, schema.HeartbeatKey, clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	if n := len(c.seen); n > 0 && res.Header.Revision < c.seen[n-1].revision {
		c.seen = nil // another store, or an older state of it: the samples say nothing about it
	}
	c.seen = append(c.seen, sample{now, res.Header.Revision})
	var target int64
	for len(c.seen) > 1 && now.Sub(c.seen[0].at) >= c.cfg.Keep {
		target = c.seen[0].revision
		c.seen = c.seen[1:]
	}
	if target <= 1 {
		return nil
	}
	// A revision just below the target that is gone already was compacted by somebody else.
	_, err = c.client.Etcd().Get(ctx, schema.HeartbeatKey, clientv3.WithCountOnly(), clientv3.WithRev(target-1))
	if errors.Is(err, rpctypes.ErrCompacted) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.fence.check(ctx, c.client); err != nil {
		return err
	}
	admin := c.client
	if c.admin != nil {
		admin = c.admin
	}
	err = admin.Do(ctx, "compact", func(ctx context.Context) error {
		_, err := admin.Etcd().Compact(ctx, target)
		return err
	})
	var denied *kvstore.EndpointError
	switch {
	case errors.As(err, &denied) && denied.Reason == kvstore.ReasonUnauthorised:
		return fmt.Errorf("etcd with auth lets only its root role compact: give the operator an etcd-admin file, or start etcd with --auto-compaction-retention=10m: %w", err)
	case err != nil && !errors.Is(err, rpctypes.ErrCompacted):
		return err
	}
	c.done.Inc()
	c.log.Debug("store compacted", "revision", target)
	return nil
}
