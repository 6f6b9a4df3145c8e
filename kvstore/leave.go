// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore/schema"
)

var (
	// ErrNoNode means that a store has no row of a node.
	ErrNoNode = errors.New("the store has no row of it")
	// ErrNodeAlive means that somebody refreshes the lease of a node, or has written its row anew.
	ErrNodeAlive = errors.New("its agent runs")
)

// LeaveConfig says which node leaves, for good. Node is required.
type LeaveConfig struct {
	Node string
	// DryRun counts the rows, and takes none away.
	DryRun bool
	// Quiet is for how long nobody may have refreshed the node's lease before its agent is taken to be
	// stopped. Default one and a half of the interval in which a Session refreshes such a lease.
	Quiet time.Duration
}

// LeaveReport is what a node had.
type LeaveReport struct {
	Cluster string
	Rows    map[string]int // by prefix
	Done    bool           // they are gone
}

// departure is a node that leaves.
type departure struct {
	c    *Client
	row  KV // of the node
	name string
}

// Leave takes away everything that a node has in the store, as its owner: every watch believes that at
// once, however many nodes leave together, where the end of many leases is held for the loss of a path.
// So the order counts: while the node's own row stands, the others go; then comes its last word, that it
// has left, for those who look later; then its row, alone. It may be repeated where it was interrupted.
//
// The node's agent has to be stopped, or it writes its rows again: ErrNodeAlive. The certificate of the
// node itself has the rights.
func Leave(ctx context.Context, c *Client, cfg LeaveConfig) (LeaveReport, error) {
	report, err := leave(ctx, c, cfg)
	if err != nil {
		err = fmt.Errorf("leave of node %s: %w", cfg.Node, err)
	}
	return report, err
}

func leave(ctx context.Context, c *Client, cfg LeaveConfig) (LeaveReport, error) {
	if cfg.Node == "" || strings.Contains(cfg.Node, "/") {
		return LeaveReport{}, fmt.Errorf("the name %q is empty or has a slash", cfg.Node)
	}
	row, err := nodeRowOf(ctx, c, cfg.Node)
	if err != nil {
		return LeaveReport{}, err
	}
	d := departure{c, row, cfg.Node}
	report := LeaveReport{Rows: map[string]int{}}
	report.Cluster, _, _ = strings.Cut(strings.TrimPrefix(row.Key, schema.NodesPrefix), "/")
	if !cfg.DryRun {
		if err := d.waitQuiet(ctx, cfg.Quiet); err != nil {
			return report, err
		}
	}
	keys, err := d.keys(ctx)
	if err != nil {
		return report, err
	}
	for _, k := range append(keys, row.Key) {
		for _, prefix := range []string{schema.NodesPrefix, schema.EndpointsPrefix, schema.IPsPrefix, schema.IdentityValuesPrefix} {
			if strings.HasPrefix(k, prefix) {
				report.Rows[prefix]++
			}
		}
	}
	if cfg.DryRun {
		return report, nil
	}
	for chunk := range slices.Chunk(keys, maxCounts) {
		var ops []clientv3.Op
		for _, k := range chunk {
			ops = append(ops, clientv3.OpDelete(k))
		}
		if err := d.commit(ctx, ops...); err != nil {
			return report, err
		}
	}
	if err := d.lastWord(ctx); err != nil {
		return report, err
	}
	if err := d.commit(ctx, clientv3.OpDelete(row.Key)); err != nil {
		return report, err
	}
	report.Done = true
	return report, nil
}

// nodeRowOf finds the row of a node by its name.
func nodeRowOf(ctx context.Context, c *Client, name string) (KV, error) {
	l, err := c.List(ctx, schema.NodesPrefix, ListOptions{}) // etcd tells no lease with keys only
	if err != nil {
		return KV{}, err
	}
	at := slices.IndexFunc(l.KVs, func(kv KV) bool { return strings.HasSuffix(kv.Key, "/"+name) })
	if at < 0 {
		return KV{}, ErrNoNode
	}
	return l.KVs[at], nil
}

// waitQuiet waits until nobody can be there who refreshes the node's lease.
func (d departure) waitQuiet(ctx context.Context, quiet time.Duration) error {
	if d.row.Lease == 0 {
		return nil // as a restored store has it: nobody refreshes what is not there
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for least := int64(-1); ; {
		ttl, err := d.ttl(ctx)
		if err != nil {
			return err
		}
		if ttl.TTL <= 0 {
			return nil // it ended meanwhile
		}
		if least >= 0 && ttl.TTL > least {
			return ErrNodeAlive
		}
		least = ttl.TTL
		granted := time.Duration(ttl.GrantedTTL) * time.Second
		enough := quiet
		if enough <= 0 {
			enough = SessionConfig{TTL: granted}.withDefaults().Refresh * 3 / 2
		}
		if granted-time.Duration(ttl.TTL)*time.Second >= enough {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until its lease is not refreshed: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// ttl asks how long the node's lease lives, and what hangs on it.
func (d departure) ttl(ctx context.Context) (ttl *clientv3.LeaseTimeToLiveResponse, err error) {
	err = d.c.do(ctx, "look at its lease", func(ctx context.Context) (err error) {
		ttl, err = d.c.etcd.TimeToLive(ctx, clientv3.LeaseID(d.row.Lease), clientv3.WithAttachedKeys())
		return err
	})
	return ttl, err
}

// keys are all rows of the node but its own and its word, in order: what hangs on its lease, and
// endpoints that hang on none or on an older one.
func (d departure) keys(ctx context.Context) ([]string, error) {
	l, err := d.c.List(ctx, schema.EndpointsPrefix+d.name+"/", ListOptions{KeysOnly: true})
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, kv := range l.KVs {
		keys = append(keys, kv.Key)
	}
	if d.row.Lease != 0 {
		ttl, err := d.ttl(ctx)
		if err != nil {
			return nil, err
		}
		for _, k := range ttl.Keys {
			keys = append(keys, string(k))
		}
	}
	keys = slices.DeleteFunc(keys, func(k string) bool { return k == d.row.Key || k == schema.OwnersPrefix+d.name })
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

// lastWord says in the store that the node has left. It hangs on no lease: who was cut off reads it
// when he is back.
func (d departure) lastWord(ctx context.Context) error {
	epoch, _, _, err := readEpoch(ctx, d.c)
	if err != nil || epoch == "" {
		return err // without an epoch nobody believes a word
	}
	codec := schema.Owners()
	value, err := codec.Encode(d.name, schema.Owner{Epoch: epoch, Complete: true, Left: true})
	if err != nil {
		return err
	}
	return d.commit(ctx, clientv3.OpPut(codec.Prefix+codec.FormatKey(d.name), string(value)))
}

// commit does something while the node's row stands as it was found: its agent writes a new one when it
// starts.
func (d departure) commit(ctx context.Context, ops ...clientv3.Op) error {
	resp, err := d.c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(d.row.Key), "=", d.row.ModRevision)).Then(ops...).Commit()
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		return fmt.Errorf("%w: its row was written or deleted meanwhile", ErrNodeAlive)
	}
	return nil
}
