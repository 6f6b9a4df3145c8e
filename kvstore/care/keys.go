// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package care

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore/schema"
)

// counted are the prefixes of the kinds of rows that are counted. None is inside another.
func counted() []string {
	return []string{
		schema.NodesPrefix, schema.IPsPrefix, schema.IdentityIDsPrefix, schema.IdentityValuesPrefix, schema.IdentityLocksPrefix,
		schema.ServicesPrefix, schema.ClusterConfigPrefix, schema.SyncedPrefix, schema.CachePrefix,
		schema.EndpointsPrefix, schema.DefinitionsPrefix, schema.VIPsPrefix, schema.OwnersPrefix, schema.RestingPrefix,
		schema.ElectionsPrefix,
	}
}

// Others stands for all keys that no other prefix counts.
const Others = "(others)"

// page is how many rows one answer has at most when bytes are counted.
const page = 2000

// prefixes counts the keys of each kind, and what is left.
func (r *reader) prefixes(ctx context.Context) {
	var sum int64
	for _, p := range counted() {
		count := Prefix{Prefix: p, Bytes: -1}
		if !r.ask(ctx, "keys of "+p, func(ctx context.Context) error {
			resp, err := r.c.Etcd().Get(ctx, p, clientv3.WithPrefix(), clientv3.WithCountOnly(), clientv3.WithSerializable())
			if err == nil {
				count.Keys = resp.Count
			}
			return err
		}) {
			continue
		}
		sum += count.Keys
		if r.opts.Bytes && count.Keys > 0 {
			count.Bytes = r.bytes(ctx, p)
		}
		if count.Keys > 0 {
			r.s.Prefixes = append(r.s.Prefixes, count)
		}
	}
	r.ask(ctx, "keys of others", func(ctx context.Context) error {
		resp, err := r.c.Etcd().Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithCountOnly(), clientv3.WithSerializable())
		if err == nil && resp.Count > sum {
			r.s.Prefixes = append(r.s.Prefixes, Prefix{Others, resp.Count - sum, -1})
		}
		return err
	})
}

// bytes sums up keys and values under a prefix, at one revision; -1 if they could not be read.
func (r *reader) bytes(ctx context.Context, prefix string) int64 {
	var sum, revision int64
	from, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	for {
		more := false
		if !r.ask(ctx, "bytes of "+prefix, func(ctx context.Context) error {
			resp, err := r.c.Etcd().Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(page),
				clientv3.WithRev(revision), clientv3.WithSerializable())
			if err != nil {
				return err
			}
			if revision == 0 {
				revision = resp.Header.Revision
			}
			for _, kv := range resp.Kvs {
				sum += int64(len(kv.Key) + len(kv.Value))
				from = string(kv.Key) + "\x00"
			}
			more = resp.More
			return nil
		}) {
			return -1
		}
		if !more {
			return sum
		}
	}
}

// history finds how far back the store can be read. A watch from the very beginning is refused with
// the revision of the last compaction, and the heartbeat of that revision tells the time.
func (r *reader) history(ctx context.Context) {
	compacted := false
	if !r.ask(ctx, "first revision", func(ctx context.Context) error {
		_, err := r.c.Etcd().Get(ctx, schema.HeartbeatKey, clientv3.WithRev(1), clientv3.WithSerializable())
		if errors.Is(err, rpctypes.ErrCompacted) {
			compacted = true
			return nil
		}
		return err
	}) || !compacted {
		return
	}
	r.ask(ctx, "last compaction", func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for resp := range r.c.Etcd().Watch(ctx, schema.HeartbeatKey, clientv3.WithRev(1)) {
			if r.s.Compacted = resp.CompactRevision; r.s.Compacted != 0 {
				return nil
			}
			if err := resp.Err(); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	if r.s.Compacted == 0 {
		return
	}
	r.ask(ctx, "time of the last compaction", func(ctx context.Context) error {
		resp, err := r.c.Etcd().Get(ctx, schema.HeartbeatKey, clientv3.WithRev(r.s.Compacted), clientv3.WithSerializable())
		if err != nil || len(resp.Kvs) == 0 {
			return err
		}
		r.s.HistoryFrom, err = schema.DecodeTime(schema.HeartbeatKey, resp.Kvs[0].Value)
		return err
	})
}
