// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/agent/endpoint"
	"github.com/weft-net/weft/identity"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

const (
	// ownersEvery is how often a node says that its rows are there, less often where there
	// are more than 3,000, so that the store sees at most 50 such writes a second.
	ownersEvery   = time.Minute
	ownersPerNode = 20 * time.Millisecond
	// ownersFirst is how soon it says so again after news: a node that read the store between the
	// news and the first word waits for another. Each rest is twice the one before.
	ownersFirst = 5 * time.Second
	// ownersLook is how often is looked whether everybody waits for this node's word.
	ownersLook = time.Second
)

// owners says in the store, for this node, which rows are its own and that they are there. After a
// store was lost the others keep the node's rows until they read that. The row has the lease of the
// rows it speaks of: it goes with them, not before them, and leaves nothing behind of a node that is gone.
type owners struct {
	cfg       Config
	client    *kvstore.Client
	guard     *kvstore.Guard
	lease     func() kvstore.Lease
	node      *state.Table[schema.NodeKey, schema.Node]
	endpoints *state.Table[schema.EndpointKey, schema.Endpoint]
	nodes     func() int // about how many speak
	log       *slog.Logger
}

// Run speaks until ctx ends.
func (o *owners) Run(ctx context.Context) error {
	look := time.NewTicker(ownersLook)
	defer look.Stop()
	var said struct {
		generation uint64
		lease      kvstore.Lease
	}
	next, rest := time.Time{}, ownersFirst
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		st, lease := o.guard.Status(), o.lease()
		news := st.Generation != said.generation || lease.Generation != said.lease.Generation
		if st.Epoch == "" || lease.ID == 0 || !news && time.Now().Before(next) {
			continue
		}
		complete, err := o.speak(ctx, st.Epoch, lease.ID)
		if err != nil {
			if ctx.Err() == nil && time.Now().After(next) {
				next = time.Now().Add(ownersEvery)
				o.log.Info("owners row not written", "error", err)
			}
			continue
		}
		rest *= 2
		if complete && news {
			said.generation, said.lease = st.Generation, lease
			rest = ownersFirst
		}
		rest = min(rest, ownersEvery)
		most := max(rest, time.Duration(o.nodes())*ownersPerNode)
		next = time.Now().Add(most/2 + rand.N(most))
	}
}

// speak puts the row if all rows of this node are in the store, and the numbers that they name, and says
// whether they were.
func (o *owners) speak(ctx context.Context, epoch string, lease clientv3.LeaseID) (complete bool, err error) {
	if !o.node.Synced() || !o.endpoints.Synced() {
		return false, nil // what is not read from disk yet would be taken for deleted
	}
	keys := o.keys()
	for needed := range slices.Chunk(slices.Concat(keys, o.masterKeys()), 100) {
		var ops []clientv3.Op
		for _, k := range needed {
			ops = append(ops, clientv3.OpGet(k, clientv3.WithCountOnly()))
		}
		resp, err := o.client.Txn(ctx).Then(ops...).Commit()
		if err != nil {
			return false, fmt.Errorf("look for this node's rows: %w", err)
		}
		for _, r := range resp.Responses {
			if r.GetResponseRange().Count == 0 {
				return false, nil // its store, or the allocator, is about to put it
			}
		}
	}
	codec := schema.Owners()
	value, err := codec.Encode(o.cfg.Node, schema.Owner{Epoch: epoch, Rows: len(keys), Complete: true})
	if err != nil {
		return false, err
	}
	_, err = o.client.Put(ctx, codec.Prefix+codec.FormatKey(o.cfg.Node), value, lease)
	return err == nil, err
}

// keys are those of all rows that this node has published.
func (o *owners) keys() (keys []string) {
	s := o.cfg.scope()
	nodes, endpoints, ips := schema.Nodes(s), schema.Endpoints(s), schema.IPs(s)
	for r := range o.node.All() {
		keys = append(keys, nodes.Prefix+nodes.FormatKey(r.Key))
	}
	addresses := endpoint.IPRows(o.cfg.Addresses[0])
	for r := range o.endpoints.All() {
		keys = append(keys, endpoints.Prefix+endpoints.FormatKey(r.Key))
		for k := range addresses(r.Key, r.Value) {
			keys = append(keys, ips.Prefix+ips.FormatKey(k))
		}
	}
	return keys
}

// masterKeys are those of the numbers that endpoints of this node have. They belong to everybody who uses
// them, and are let go of when all have spoken: whoever spoke before it had put its own back would have
// the others forget a number that is in use. That it stands there is enough: one that others have by now
// gets its endpoints another number, which during a hold may have to wait for its end, and so for this word.
func (o *owners) masterKeys() (keys []string) {
	first, last := identity.Range(o.cfg.ClusterID, o.cfg.MaxClusters)
	seen := map[identity.ID]bool{}
	for r := range o.endpoints.All() {
		if id := identity.ID(r.Value.Identity); id >= first && id <= last && !seen[id] {
			seen[id] = true
			keys = append(keys, schema.IdentityMasterKey(uint32(id)))
		}
	}
	return keys
}
