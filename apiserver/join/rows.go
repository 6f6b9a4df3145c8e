// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// errChanged means that somebody else wrote between reading and writing.
var errChanged = errors.New("somebody else changed it meanwhile; run the command again")

// row is a row of the store with the revision that it was read at.
type row[V any] struct {
	value V
	mod   int64 // 0: there is none
}

// read reads one row. One that is missing has mod 0; one that cannot be read is an error.
func read[K comparable, V any](ctx context.Context, c *kvstore.Client, codec schema.Codec[K, V], key K) (row[V], error) {
	kv, ok, err := c.Get(ctx, codec.Prefix+codec.FormatKey(key))
	if err != nil || !ok {
		return row[V]{}, err
	}
	v, err := codec.Decode(key, kv.Value)
	return row[V]{v, kv.ModRevision}, err
}

// put is the operation that writes a row.
func put[K comparable, V any](codec schema.Codec[K, V], key K, v V) (clientv3.Op, error) {
	b, err := codec.Encode(key, v)
	return clientv3.OpPut(codec.Prefix+codec.FormatKey(key), string(b)), err
}

// unchanged is true as long as a row has not been written since it was read.
func unchanged[K comparable, V any](codec schema.Codec[K, V], key K, mod int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(codec.Prefix+codec.FormatKey(key)), "=", mod)
}

// commit does operations in one transaction if all comparisons hold; else nothing, and errChanged.
func commit(ctx context.Context, c *kvstore.Client, what string, cmps []clientv3.Cmp, ops ...clientv3.Op) error {
	resp, err := c.Txn(ctx).If(cmps...).Then(ops...).Commit()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if !resp.Succeeded {
		return fmt.Errorf("%s: %w", what, errChanged)
	}
	return nil
}

// changePeer writes what change makes of a peer's row, again if somebody else was faster. change
// returns false where the row is to stay as it is. A missing row is an error.
func changePeer(ctx context.Context, c *kvstore.Client, name string, change func(*schema.Peer) bool) (schema.Peer, error) {
	codec := schema.Peers()
	for tries := 1; ; tries++ {
		r, err := read(ctx, c, codec, name)
		if err != nil {
			return schema.Peer{}, fmt.Errorf("peer %s: %w", name, err)
		}
		if r.mod == 0 {
			return schema.Peer{}, fmt.Errorf("peer %s: %w", name, ErrNoPeer)
		}
		if !change(&r.value) {
			return r.value, nil
		}
		op, err := put(codec, name, r.value)
		if err != nil {
			return schema.Peer{}, fmt.Errorf("peer %s: %w", name, err)
		}
		err = commit(ctx, c, "peer "+name, []clientv3.Cmp{unchanged(codec, name, r.mod)}, op)
		if err == nil || !errors.Is(err, errChanged) || tries == 5 {
			return r.value, err
		}
	}
}

// ErrNoPeer means that a cluster never joined.
var ErrNoPeer = errors.New("no such peer")
