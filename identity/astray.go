// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// noteAstray notes sets that this node does not use and of which a reference hangs on its lease. A store
// that was set back to an earlier state has the lease too, so references that were removed since would
// stand again for as long as the agent lives, and keep their numbers from being collected. The lease says
// what hangs on it, so nothing else need be read.
func (a *Allocator) noteAstray(ctx context.Context) error {
	a.mu.Lock()
	due := a.astray
	a.astray = false
	a.mu.Unlock()
	lease, _ := a.session.Current()
	if !due || lease.Generation == 0 { // a new lease has nothing, and notes all sets
		return nil
	}
	var on *clientv3.LeaseTimeToLiveResponse
	err := a.client.Do(ctx, "look what hangs on the lease", func(ctx context.Context) (err error) {
		on, err = a.client.Etcd().TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
		return err
	})
	var denied *kvstore.EndpointError
	if errors.As(err, &denied) && denied.Reason == kvstore.ReasonUnauthorised {
		// Somebody else's roles: a lease tells its keys to whoever may read all of them. Nothing else is
		// to wait for that.
		return nil
	}
	if err != nil {
		a.mu.Lock()
		a.astray = true
		a.mu.Unlock()
		return fmt.Errorf("references that are not used: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, key := range on.Keys {
		tail, ok := strings.CutPrefix(string(key), schema.IdentityValuesPrefix)
		at := strings.LastIndexByte(tail, '/')
		if !ok || at < 0 || a.referenceKey(tail[:at]) != string(key) {
			continue
		}
		if text := tail[:at]; a.uses[text] == nil {
			a.useLocked(text)
			a.settleLocked(text)
		}
	}
	return nil
}
