// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"hash/fnv"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// continuity says whether the etcd that answers has the history that the cache has.
type continuity string

const (
	// proven: what was seen last stands in its history where it was seen.
	proven continuity = "proven"
	// gap: it is the same store as far as can be told, but what happened meanwhile is forgotten.
	gap continuity = "gap"
	// broken: it was wiped, rolled back or replaced.
	broken continuity = "broken"
)

// witness is the last put that was seen, and the last deletion: what a store is recognised by. Its cluster
// id proves nothing, an etcd that was wiped and started with the same settings has the same one.
type witness struct {
	mu      sync.Mutex
	key     string // "": none
	mod     int64
	hash    uint64
	deleted bool

	gone   string // the key of the last deletion
	goneAt int64  // its revision; 0: none was seen
}

// see takes note of events in their order.
func (w *witness) see(evs []*mvccpb.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ev := range evs {
		if ev.Type == mvccpb.Event_PUT {
			w.key, w.mod, w.hash, w.deleted = string(ev.Kv.Key), ev.Kv.ModRevision, hashOf(ev.Kv.Value), false
			continue
		}
		w.gone, w.goneAt = string(ev.Kv.Key), ev.Kv.ModRevision
		w.deleted = w.deleted || w.gone == w.key
	}
}

// begin forgets what was and takes the last put of a list.
func (w *witness) begin(kvs []*mvccpb.KeyValue) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.key, w.mod, w.hash, w.deleted, w.gone, w.goneAt = "", 0, 0, false, "", 0
	var last *mvccpb.KeyValue
	for _, kv := range kvs {
		if last == nil || kv.ModRevision > last.ModRevision {
			last = kv
		}
	}
	if last != nil {
		w.key, w.mod, w.hash = string(last.Key), last.ModRevision, hashOf(last.Value)
	}
}

func hashOf(value []byte) uint64 {
	h := fnv.New64a()
	h.Write(value)
	return h.Sum64()
}

// prove asks the etcd whether it has the history of a generation. The error is one of the connection
// and says nothing of that.
func (c *Cache) prove(ctx context.Context, gen *Generation, epoch string) (continuity, error) {
	header, err := c.quorum(ctx)
	if err != nil {
		return "", err
	}
	at := gen.Store.Revision()
	if header.ClusterId != gen.upstream || header.Revision < at {
		return broken, nil
	}
	c.witness.mu.Lock()
	key, mod, hash, deleted := c.witness.key, c.witness.mod, c.witness.hash, c.witness.deleted
	gone, goneAt := c.witness.gone, c.witness.goneAt
	c.witness.mu.Unlock()
	if key == "" {
		// Nothing was ever there that could be missed. What came meanwhile, in this store or in one
		// that took its place, is listed.
		if epoch != gen.Epoch {
			return gap, nil
		}
		return proven, nil
	}
	if deleted {
		at = mod
	}
	stands := func(resp *clientv3.GetResponse) bool {
		return resp.Header.ClusterId == gen.upstream && len(resp.Kvs) == 1 &&
			resp.Kvs[0].ModRevision == mod && hashOf(resp.Kvs[0].Value) == hash
	}
	resp, err := c.get(ctx, key, clientv3.WithRev(at))
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		// The key may still be as it was; else the epoch is all there is to go by.
		resp, err := c.get(ctx, key)
		if err != nil {
			return "", err
		}
		if stands(resp) || epoch != "" && epoch == gen.Epoch {
			return gap, nil
		}
		return broken, nil
	case errors.Is(err, rpctypes.ErrFutureRev):
		return broken, nil
	case err != nil:
		return "", err
	}
	if !stands(resp) {
		return broken, nil
	}
	if goneAt > mod {
		return c.proveDeletion(ctx, gone, goneAt)
	}
	return proven, nil
}

// proveDeletion asks for a deletion that came after the witness, which a copy of the etcd from before it
// lacks, though it has the witness.
func (c *Cache) proveDeletion(ctx context.Context, key string, at int64) (continuity, error) {
	for before := range int64(2) {
		resp, err := c.get(ctx, key, clientv3.WithRev(at-before))
		switch {
		case errors.Is(err, rpctypes.ErrCompacted):
			return proven, nil // by the witness; there is no more to ask
		case errors.Is(err, rpctypes.ErrFutureRev):
			return broken, nil
		case err != nil:
			return "", err
		case int64(len(resp.Kvs)) != before:
			return broken, nil
		}
	}
	return proven, nil
}
