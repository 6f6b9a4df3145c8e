// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// Reasons why a remote is not forgotten.
var (
	// ErrNoCopy: the store has nothing of a cluster of that name.
	ErrNoCopy = errors.New("the store has no copy of it")
	// ErrConnected: the remote is there.
	ErrConnected = errors.New("it is connected")
)

// lookForget is how often Forget looks whether it is done.
const lookForget = 100 * time.Millisecond

// Forget lets the mirror delete the copy of a remote that is gone for good, and waits until it has. by
// names who decided. It fails with ErrNoCopy or ErrConnected where there is nothing to forget, and with
// the error of ctx where no mirror did it in time; it will then be done by the next one that leads.
func Forget(ctx context.Context, c *kvstore.Client, cluster, by string) error {
	if err := schema.CheckClusterName(cluster); err != nil {
		return fmt.Errorf("forget: %w", err)
	}
	rows, forgets := schema.Mirrors(), schema.Forgets()
	kv, ok, err := c.Get(ctx, rows.Prefix+cluster)
	if err != nil {
		return fmt.Errorf("forget %s: %w", cluster, err)
	}
	row, err := rows.Decode(cluster, kv.Value)
	switch {
	case !ok:
		return fmt.Errorf("forget %s: %w", cluster, ErrNoCopy)
	case err == nil && row.Connected:
		return fmt.Errorf("forget %s: %w, as %s said", cluster, ErrConnected, row.By)
	}
	value, err := forgets.Encode(cluster, schema.Forget{By: by, At: time.Now()})
	if err != nil {
		return fmt.Errorf("forget %s: %w", cluster, err)
	}
	key := forgets.Prefix + cluster
	resp, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(rows.Prefix+cluster), "=", kv.ModRevision)).
		Then(clientv3.OpPut(key, string(value))).Commit()
	if err != nil {
		return fmt.Errorf("forget %s: %w", cluster, err)
	}
	if !resp.Succeeded {
		return Forget(ctx, c, cluster, by) // the mirror has said something else meanwhile
	}
	tick := time.NewTicker(lookForget)
	defer tick.Stop()
	for {
		kv, ok, err := c.Get(ctx, key)
		if err != nil {
			return fmt.Errorf("forget %s: %w", cluster, err)
		}
		if !ok {
			return fmt.Errorf("forget %s: %w: the mirror refused", cluster, ErrConnected)
		}
		if f, err := forgets.Decode(cluster, kv.Value); err == nil && !f.Done.IsZero() {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("forget %s: no mirror has done it yet: %w", cluster, ctx.Err())
		case <-tick.C:
		}
	}
}
