// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// peer allocates as the protocol of locks says, one step after the other while it has the lock of
// the labels: look for a reference, then for a master key, else make a master key where none is, then
// the reference. It knows nothing of numbers at rest.
type peer struct {
	client      *kvstore.Client
	session     *kvstore.Session
	address     string
	first, last ID
	giving      func(id ID, labels string) // called before it makes a master key
	rng         *rand.Rand
}

// allocate returns the number of a set. After an error it may have written some of it.
func (p *peer) allocate(ctx context.Context, labels Labels) (ID, error) {
	text := labels.String()
	lease, _, err := p.session.Lease(ctx)
	if err != nil {
		return Unknown, err
	}
	session, err := concurrency.NewSession(p.client.Etcd(), concurrency.WithContext(ctx), concurrency.WithTTL(25))
	if err != nil {
		return Unknown, err
	}
	defer func() {
		session.Orphan()
		_, _ = p.client.Etcd().Revoke(context.WithoutCancel(ctx), session.Lease())
	}()
	mutex := concurrency.NewMutex(session, schema.IdentityLockPath(text))
	if err := mutex.Lock(ctx); err != nil {
		return Unknown, err
	}
	id, err := p.find(ctx, text)
	if err != nil {
		return Unknown, err
	}
	for id == Unknown {
		candidate := p.first + ID(p.rng.IntN(int(p.last-p.first)+1))
		p.giving(candidate, text)
		master := schema.IdentityMasterKey(uint32(candidate))
		resp, err := p.client.Txn(ctx).
			If(mutex.IsOwner(), absent(master)).
			Then(clientv3.OpPut(master, text)).
			Else(clientv3.OpGet(master)).
			Commit()
		switch {
		case err != nil:
			return Unknown, err
		case resp.Succeeded:
			id = candidate
		case len(resp.Responses[0].GetResponseRange().Kvs) == 0:
			return Unknown, fmt.Errorf("the lock is lost")
		}
	}
	ref := schema.IdentityReferencesPrefix(text) + p.address
	resp, err := p.client.Txn(ctx).
		If(mutex.IsOwner()).
		Then(clientv3.OpPut(ref, strconv.Itoa(int(id)), clientv3.WithLease(lease))).
		Commit()
	if err == nil && !resp.Succeeded {
		err = fmt.Errorf("the lock is lost")
	}
	if err != nil {
		return Unknown, err
	}
	return id, nil
}

// find returns the number a set has, by a reference or by a master key.
func (p *peer) find(ctx context.Context, text string) (ID, error) {
	prefix := schema.IdentityReferencesPrefix(text)
	refs, err := p.client.List(ctx, prefix, kvstore.ListOptions{})
	if err != nil {
		return Unknown, err
	}
	for _, kv := range refs.KVs {
		if n, err := strconv.Atoi(string(kv.Value)); err == nil && !strings.Contains(kv.Key[len(prefix):], "/") {
			return ID(n), nil
		}
	}
	masters, err := p.client.List(ctx, schema.IdentityIDsPrefix, kvstore.ListOptions{})
	if err != nil {
		return Unknown, err
	}
	for _, kv := range masters.KVs {
		if n, err := strconv.Atoi(kv.Key[len(schema.IdentityIDsPrefix):]); err == nil && string(kv.Value) == text {
			return ID(n), nil
		}
	}
	return Unknown, nil
}

// release removes the reference, without a lock.
func (p *peer) release(ctx context.Context, labels Labels) error {
	_, err := p.client.Delete(ctx, schema.IdentityReferencesPrefix(labels.String())+p.address)
	return err
}
