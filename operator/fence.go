// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// fence is one term of leading as the store knows it: the candidate's key, and the revision that
// created it. A transaction that compares it does nothing once the term is over, however late it
// arrives.
type fence struct {
	key     string
	created int64
}

// errNotLeading means that the store does not know our term any more.
var errNotLeading = errors.New("not the leader any more")

// newFence finds the candidate's key that hangs on a lease.
func newFence(ctx context.Context, c *kvstore.Client, lease clientv3.LeaseID) (fence, error) {
	l, err := c.List(ctx, schema.ElectionsPrefix+office+"/", kvstore.ListOptions{})
	if err != nil {
		return fence{}, fmt.Errorf("fence: %w", err)
	}
	for _, kv := range l.KVs {
		if kv.Lease == lease {
			return fence{key: kv.Key, created: kv.CreateRevision}, nil
		}
	}
	return fence{}, fmt.Errorf("fence: %w", errNotLeading)
}

func (f fence) holds() clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(f.key), "=", f.created)
}

// check asks the store, for work that is no transaction.
func (f fence) check(ctx context.Context, c *kvstore.Client) error {
	kv, ok, err := c.Get(ctx, f.key)
	if err == nil && (!ok || kv.CreateRevision != f.created) {
		err = errNotLeading
	}
	return err
}
