// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// reaper removes rows of nodes that are gone for good. Such rows should have gone with the node's
// lease; a row without one (restored, or written by hand) stays until somebody removes it. Rows on
// a lease are never touched. What it has seen is not kept over a change of the leader: the bound
// counts from then on.
type reaper struct {
	cfg    Config
	client *kvstore.Client
	log    *slog.Logger
	check  func(context.Context) error // nothing may be taken away when it fails
	fence  fence
	done   prometheus.Counter

	seen map[string]orphan // by key
}

// orphan is a row whose node has no row, at one revision of both rows that speak for it.
type orphan struct {
	revision int64 // of the row
	owner    int64 // of the owners row of the node; it is fresh while this moves
	since    time.Time
}

// Run looks at intervals until ctx ends.
func (r *reaper) Run(ctx context.Context) error {
	return every(ctx, min(10*time.Minute, r.cfg.GoneAfter), func() {
		if err := r.turn(ctx, time.Now()); err != nil && ctx.Err() == nil && !errors.Is(err, errHold) {
			r.log.Warn("rows of nodes that are gone not looked at", "reason", err.Error())
		}
	})
}

// turn notes what names no node, and removes what did so for long enough.
func (r *reaper) turn(ctx context.Context, now time.Time) error {
	if err := r.check(ctx); err != nil {
		return err
	}
	names, addrs, err := r.nodes(ctx)
	if err != nil {
		return err
	}
	owners := map[string]int64{}
	seen := map[string]orphan{}
	note := func(kv kvstore.KV, node string) {
		if kv.Lease != 0 {
			return
		}
		o := orphan{kv.ModRevision, owners[node], now}
		if old, ok := r.seen[kv.Key]; ok && old.revision == o.revision && old.owner == o.owner {
			o.since = old.since
		}
		seen[kv.Key] = o
	}
	for _, kind := range []struct {
		prefix string
		look   func(tail string, kv kvstore.KV)
	}{
		{schema.OwnersPrefix, func(tail string, kv kvstore.KV) {
			owners[tail] = kv.ModRevision
			if !names[tail] && tail != schema.OperatorOwner {
				note(kv, tail)
			}
		}},
		{schema.EndpointsPrefix, func(tail string, kv kvstore.KV) {
			if node, _, ok := strings.Cut(tail, "/"); ok && !names[node] {
				note(kv, node)
			}
		}},
		{schema.IPsPrefix, func(tail string, kv kvstore.KV) {
			codec := schema.IPs(r.cfg.scope())
			key, err := codec.ParseKey(tail)
			if err != nil {
				return
			}
			if ip, err := codec.Decode(key, kv.Value); err == nil && ip.HostIP.IsValid() && !addrs[ip.HostIP] {
				note(kv, "")
			}
		}},
		{schema.IdentityValuesPrefix, func(tail string, kv kvstore.KV) {
			if a, err := netip.ParseAddr(tail[strings.LastIndexByte(tail, '/')+1:]); err == nil && !addrs[a] {
				note(kv, "")
			}
		}},
		{schema.IdentityLocksPrefix, func(_ string, kv kvstore.KV) { note(kv, "") }},
	} {
		l, err := r.client.List(ctx, kind.prefix, kvstore.ListOptions{})
		if err != nil {
			return err
		}
		for _, kv := range l.KVs {
			kind.look(kv.Key[len(kind.prefix):], kv)
		}
	}
	r.seen = seen
	for key, o := range seen {
		if now.Sub(o.since) < r.cfg.GoneAfter {
			continue
		}
		if err := r.remove(ctx, key, o); err != nil {
			return err
		}
	}
	return nil
}

// nodes returns names and addresses of the nodes that have a row. One that cannot be read is an
// error: nobody knows what is its.
func (r *reaper) nodes(ctx context.Context) (names map[string]bool, addrs map[netip.Addr]bool, err error) {
	codec := schema.Nodes(r.cfg.scope())
	l, err := r.client.List(ctx, schema.NodesPrefix+r.cfg.Cluster+"/", kvstore.ListOptions{})
	if err != nil {
		return nil, nil, err
	}
	names, addrs = map[string]bool{}, map[netip.Addr]bool{}
	for _, kv := range l.KVs {
		key, err := codec.ParseKey(strings.TrimPrefix(kv.Key, codec.Prefix))
		if err != nil {
			return nil, nil, fmt.Errorf("node row %s: %w", kv.Key, err)
		}
		n, err := codec.Decode(key, kv.Value)
		if err != nil {
			return nil, nil, fmt.Errorf("node row %s: %w", kv.Key, err)
		}
		names[key.Name] = true
		for _, a := range n.Addresses {
			addrs[a.IP] = true
		}
	}
	return names, addrs, nil
}

// remove deletes one row, unless anything has changed since it was looked at. Each goes in a
// transaction of its own, so that nobody takes it for a deletion by hand.
func (r *reaper) remove(ctx context.Context, key string, o orphan) error {
	cmps := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", o.revision), r.fence.holds()}
	if tail, ok := strings.CutPrefix(key, schema.EndpointsPrefix); ok {
		node, _, _ := strings.Cut(tail, "/")
		cmps = append(cmps, r.noNode(node)...)
	} else if node, ok := strings.CutPrefix(key, schema.OwnersPrefix); ok {
		cmps = append(cmps, r.noNode(node)...)
	}
	res, err := r.client.Txn(ctx).If(cmps...).Then(clientv3.OpDelete(key)).Commit()
	if err != nil {
		return fmt.Errorf("remove %s: %w", key, err)
	}
	if res.Succeeded {
		delete(r.seen, key)
		r.done.Inc()
		r.log.Info("row of a node that is gone removed", "key", key)
	}
	return nil
}

func (r *reaper) noNode(name string) []clientv3.Cmp {
	return []clientv3.Cmp{clientv3.Compare(clientv3.Version(schema.NodesPrefix+r.cfg.Cluster+"/"+name), "=", 0)}
}
