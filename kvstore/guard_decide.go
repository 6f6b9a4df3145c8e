// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore/schema"
)

// Difference is what tables and store differ by: Adopt deletes these rows from the tables, Reseed
// writes them to the store.
type Difference struct {
	Rows   int
	Kinds  []HeldKind
	Owners []HeldOwner
	Keys   []HeldRow // the first of them
}

// Difference returns what Adopt and Reseed would do, with at most limit of the rows.
func (g *Guard) Difference(limit int) Difference {
	h := g.Status().Hold
	return Difference{h.Rows, h.Kinds, h.Owners, g.Held(limit)}
}

// Adopt decides that what is in the store is the truth now, for everybody who reads the decision;
// by names who decided. Where this client may not write it, and where the store is ReadOnly, it is
// decided for this process alone, and all is false. It returns what was let go here.
func (g *Guard) Adopt(ctx context.Context, by string) (done Difference, all bool, err error) {
	done = g.Difference(100)
	c := g.client()
	if g.cfg.ReadOnly {
		g.adopt(g.nowAt(ctx, c))
		return done, false, nil
	}
	epoch, _, revision, err := readEpoch(ctx, c)
	if err != nil {
		return Difference{}, false, fmt.Errorf("adopt: %w", err)
	}
	all = true
	value, err := schema.EncodeDecision(schema.Decision{
		Decision: schema.DecisionAdopt, Revision: revision, Epoch: epoch, By: by, At: time.Now(),
	})
	if err == nil {
		revision, err = c.Put(ctx, schema.DecisionKey, value, 0)
	}
	var denied *EndpointError
	var invalid *schema.InvalidError
	switch {
	case errors.As(err, &denied) && denied.Reason == ReasonUnauthorised, errors.As(err, &invalid):
		all = false // a store of somebody else, or one without an epoch
	case err != nil:
		return Difference{}, false, fmt.Errorf("adopt: %w", err)
	}
	if revision == 0 {
		return Difference{}, false, errors.New("adopt: the store does not say how far it is")
	}
	if !all {
		revision++ // no write of ours came after the lists
	}
	g.adopt(revision)
	return done, all, nil
}

// nowAt is a revision after all that is held, and, if the store can be asked, after all that it has.
func (g *Guard) nowAt(ctx context.Context, c *Client) int64 {
	groups := map[heldGroup]int{}
	g.groups(groups, map[string]int{})
	revision := int64(0)
	for h := range groups {
		revision = max(revision, h.revision)
	}
	if c != nil {
		_ = c.do(ctx, "get "+schema.HeartbeatKey, func(ctx context.Context) error {
			resp, err := c.etcd.Get(ctx, schema.HeartbeatKey, clientv3.WithCountOnly())
			if err == nil {
				revision = max(revision, resp.Header.Revision)
			}
			return err
		})
	}
	return revision + 1
}
