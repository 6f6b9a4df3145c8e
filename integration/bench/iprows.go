// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// A cluster of the size that the goals are made for.
const (
	manyRows  = 36_000 // endpoints
	manyNodes = 400
)

// isEndpoint tells the addresses of ip rows from those that a node has by itself.
func isEndpoint(p netip.Prefix) bool {
	return p.IsSingleIP() && p.Addr().Is4() && p.Addr().As4()[0] == 10 && p.Addr().As4()[1] < 128
}

// ipPrefix is the address of the i-th endpoint.
func ipPrefix(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
}

// ipValue is what a node says of the i-th endpoint.
func ipValue(i int, identity uint32) schema.IP {
	n := i % manyNodes
	return schema.IP{
		HostIP: netip.AddrFrom4([4]byte{192, 168, byte(n >> 8), byte(n)}), ID: identity,
		Workload: schema.Workload{Namespace: "default", Name: fmt.Sprintf("app-%d", i)}.Pack(),
	}
}

// ipRow is that as it stands in the store.
func ipRow(i int, identity uint32) (key string, value []byte, err error) {
	codec := schema.IPs(scope())
	k := schema.IPKey{Cluster: scope().Cluster, Prefix: ipPrefix(i)}
	value, err = codec.Encode(k, ipValue(i, identity))
	return codec.Prefix + codec.FormatKey(k), value, err
}

// identityOf is the identity of the i-th endpoint after it changed a number of times.
func identityOf(i, changes int) uint32 { return scope().ClusterID<<16 | uint32(1000+(i+changes)%5000) }

// fillBatch is how many rows one transaction writes; etcd's limit is 128.
const fillBatch = 100

// fill writes ops in full transactions, one after another.
func fill(ctx context.Context, c *kvstore.Client, ops []clientv3.Op) error {
	for len(ops) > 0 {
		n := min(fillBatch, len(ops))
		if _, err := c.Txn(ctx).Then(ops[:n]...).Commit(); err != nil {
			return err
		}
		ops = ops[n:]
	}
	return nil
}

// fillIPs writes all ip rows.
func fillIPs(ctx context.Context, c *kvstore.Client) error {
	var ops []clientv3.Op
	for i := range manyRows {
		key, value, err := ipRow(i, identityOf(i, 0))
		if err != nil {
			return err
		}
		ops = append(ops, clientv3.OpPut(key, string(value)))
	}
	return fill(ctx, c, ops)
}

// atOnce calls f with the numbers 0 to n-1 from a number of goroutines; the numbers of one have the
// same remainder.
func atOnce(workers, n int, f func(i int) error) error {
	var g errgroup.Group
	for first := range workers {
		g.Go(func() error {
			for i := first; i < n; i += workers {
				if err := f(i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// setUp writes what a guarded store has besides rows.
func setUp(ctx context.Context, c *kvstore.Client) error {
	epoch, err := schema.EncodeEpoch(schema.Epoch{ID: fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64()), Created: time.Now()})
	if err != nil {
		return err
	}
	return fill(ctx, c, []clientv3.Op{
		clientv3.OpPut(schema.EpochKey, string(epoch)),
		clientv3.OpPut(schema.HeartbeatKey, string(schema.EncodeTime(time.Now()))),
	})
}
