// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore/schema"
)

// errReplaced means that a store that was lost has another in its place, and that is served now.
var errReplaced = errors.New("the store was replaced and is served as it is now")

// hold serves the last view of a store that was lost, while its owners write it anew, and then what
// they wrote. That is when each node of the last view has said under a new epoch that all its rows
// are there, when somebody decided that what is there is the truth, or after a limit, unless by then
// more than a fifth of the nodes is still missing. A store without an epoch has nobody who could say
// so: there the limit is all. Then it goes on for HoldLonger.
func (c *Cache) hold(ctx context.Context) error {
	gen := c.gen.Load()
	c.mu.Lock()
	first := c.status.Holding.IsZero()
	if first {
		c.status.Holding, c.held, c.over = time.Now(), 0, time.Time{}
	}
	c.mu.Unlock()
	gen.Store.giveUp()
	nodes := nodesOf(gen.Store, c.cfg.Cluster)
	if first {
		c.log.Warn("the store is not the one that was known; its last view is served until its owners are back",
			"revision", gen.Store.Revision(), "nodes", len(nodes))
	}
	for at := time.Now(); ; {
		missing, adopted, err := c.returned(ctx, gen, nodes)
		if err != nil {
			return fmt.Errorf("hold: %w", err)
		}
		late := c.held >= c.cfg.HoldLimit && (missing*5 <= len(nodes) || gen.Epoch == "")
		if may := adopted || missing == 0 || late; !may {
			c.over = time.Time{}
		} else if c.over.IsZero() {
			c.over = time.Now()
		}
		if !c.over.IsZero() && time.Since(c.over) >= c.cfg.HoldLonger {
			break
		}
		c.heard(time.Now())
		if !pause(ctx, c.cfg.Probe) {
			return ctx.Err()
		}
		c.held, at = c.held+time.Since(at), time.Now()
	}
	next, err := c.begin(ctx)
	if err != nil {
		return err
	}
	c.log.Info("the hold is over", "revision", next.Store.Revision())
	next.from = next.Store.base // what happened before is not the history of anybody's clients
	c.publishUnread(next)
	return errReplaced
}

// nodesOf returns the names of a cluster's nodes in a store.
func nodesOf(s *Store, cluster string) map[string]bool {
	nodes := map[string]bool{}
	prefix := schema.NodesPrefix + cluster + "/"
	v := s.view.Load()
	v.keys.ascend(prefix, clientv3.GetPrefixRangeEnd(prefix), func(it *item) bool {
		if it.at(v.rev) != nil {
			nodes[strings.TrimPrefix(it.key, prefix)] = true
		}
		return true
	})
	return nodes
}

// returned counts the nodes that have not said yet that all their rows are in the store, and tells
// whether somebody decided not to wait for them. What was said under the epoch of the last view may
// have been said before the store was lost.
func (c *Cache) returned(ctx context.Context, gen *Generation, nodes map[string]bool) (missing int, adopted bool, err error) {
	if len(nodes) == 0 {
		return 0, false, nil
	}
	epoch, _, err := c.readEpoch(ctx)
	if err != nil {
		return 0, false, err
	}
	if epoch == "" || epoch == gen.Epoch {
		return len(nodes), false, nil
	}
	resp, err := c.get(ctx, schema.DecisionKey)
	if err == nil && len(resp.Kvs) > 0 {
		d, derr := schema.DecodeDecision(resp.Kvs[0].Value)
		adopted = derr == nil && d.Decision == schema.DecisionAdopt && d.Epoch == epoch
	}
	if err != nil && !errors.Is(err, rpctypes.ErrPermissionDenied) {
		return 0, false, err
	}
	owners, err := c.get(ctx, schema.OwnersPrefix, clientv3.WithPrefix())
	if errors.Is(err, rpctypes.ErrPermissionDenied) {
		return len(nodes), adopted, nil
	}
	if err != nil {
		return 0, false, err
	}
	codec, back := schema.Owners(), 0
	for _, kv := range owners.Kvs {
		name := strings.TrimPrefix(string(kv.Key), schema.OwnersPrefix)
		o, err := codec.Decode(name, kv.Value)
		if err == nil && nodes[name] && o.Complete && o.Epoch == epoch {
			back++
		}
	}
	return len(nodes) - back, adopted, nil
}
