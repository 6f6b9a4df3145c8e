// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// rest is a number at rest, as a collector has read its row or written it.
type rest struct {
	revision int64 // of the row
	freed    time.Time
}

// restsAnew is how long a collector believes what it knows of numbers at rest. Only it writes their
// rows while it leads, so that they are read again is for rows that came by hand or with a backup.
const restsAnew = time.Hour

// wakeResting ends the rest of numbers that have rested long enough. Their rows are not read in each
// round: a day of churn leaves as many as a cluster has numbers. What is remembered decides nothing, a
// row goes if it is as it was read; where one is not, all are read again.
func (g *GC) wakeResting(ctx context.Context) error {
	if err := g.readResting(ctx); err != nil {
		return err
	}
	var due []string
	g.mu.Lock()
	g.stats.Resting = len(g.rests)
	for key, r := range g.rests {
		if time.Since(r.freed) >= g.cfg.Rest {
			due = append(due, key)
		}
	}
	g.mu.Unlock()
	if g.cfg.Away != nil && g.cfg.Away() {
		return nil
	}
	slices.Sort(due)
	for batch := range slices.Chunk(due, gcBatch) {
		if err := g.limit.WaitN(ctx, len(batch)); err != nil {
			return err
		}
		if err := g.wake(ctx, batch); err != nil {
			return fmt.Errorf("end the rest of numbers: %w", err)
		}
	}
	return nil
}

// wake removes rows of numbers at rest that are as they are known.
func (g *GC) wake(ctx context.Context, keys []string) error {
	ops := make([]clientv3.Op, len(keys))
	g.mu.Lock()
	for i, key := range keys {
		ops[i] = clientv3.OpTxn(
			[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", g.rests[key].revision)},
			[]clientv3.Op{clientv3.OpDelete(key)}, nil)
	}
	g.mu.Unlock()
	resp, err := g.commit(ctx, ops...)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		g.restsRead = time.Time{} // some may be gone
		return err
	}
	for i, key := range keys {
		delete(g.rests, key)
		if !resp.Responses[i].GetResponseTxn().Succeeded {
			g.restsRead = time.Time{} // somebody has written it anew, or removed it
		}
	}
	g.stats.Resting = len(g.rests)
	return nil
}

// readResting reads the rows of the numbers at rest, if they are not known or have not been read for
// long.
func (g *GC) readResting(ctx context.Context) error {
	g.mu.Lock()
	known := g.rests != nil
	g.mu.Unlock()
	if known && time.Since(g.restsRead) < restsAnew {
		return nil
	}
	began := time.Now()
	l, err := g.client.List(ctx, g.resting.Prefix, kvstore.ListOptions{})
	if err != nil {
		return err
	}
	rests := make(map[string]rest, len(l.KVs))
	for _, kv := range l.KVs {
		k, err := g.resting.ParseKey(kv.Key[len(g.resting.Prefix):])
		if err != nil {
			continue
		}
		r, err := g.resting.Decode(k, kv.Value)
		if err == nil {
			rests[kv.Key] = rest{kv.ModRevision, r.Freed}
			continue
		}
		// Nobody knows since when it rests: it begins now.
		g.log.Warn("resting number is not readable and begins its rest anew", "identity", k.ID, "error", err)
		revision, err := g.restAnew(ctx, k, kv)
		if err != nil {
			return err
		}
		rests[kv.Key] = rest{revision, began}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rests, g.restsRead = rests, began
	return nil
}

// restAnew writes a resting row with the present time over one that cannot be read, and returns the
// revision of that.
func (g *GC) restAnew(ctx context.Context, k schema.IdentityKey, kv kvstore.KV) (int64, error) {
	b, err := g.resting.Encode(k, schema.Resting{Freed: time.Now()})
	if err != nil {
		return 0, err
	}
	resp, err := g.commit(ctx, clientv3.OpTxn(
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(kv.Key), "=", kv.ModRevision)},
		[]clientv3.Op{clientv3.OpPut(kv.Key, string(b))}, nil))
	if err != nil {
		return 0, err
	}
	return resp.Header.Revision, nil
}
