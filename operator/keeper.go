// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// keeper recognises the store, keeps the last good copy of the rows of the cluster, and puts back
// what the store lost. It follows whether this operator leads or not, so that the one who leads
// next knows as much; it writes only with a fence.
//
//	proven      what is absent was deleted, and is followed; unless one revision took rows of
//	            several services, which no writer of ours does: that is put back
//	unproven    what is absent is followed: it may have been deleted while nobody looked
//	broken      a new epoch, so that all agree, and what is absent is put back
type keeper struct {
	cfg     Config
	client  *kvstore.Client
	log     *slog.Logger
	metrics *metrics

	turns sync.Mutex // one turn at a time; guards what follows
	mem   memory
	known bool // mem says something
	mods  map[string]int64

	mu      sync.Mutex
	fence   *fence // nil: we do not lead
	holding bool
	changed chan struct{} // closed and replaced when holding changes
}

// Limits of a hold: how long owners have to come back after a broken lineage, and how long a
// deletion of several services by hand stops work.
const (
	holdLimit = 20 * time.Minute
	holdBrief = 30 * time.Second
	keepEvery = 2 * time.Second
)

func newKeeper(cfg Config, c *kvstore.Client, m *metrics, log *slog.Logger) *keeper {
	return &keeper{cfg: cfg, client: c, metrics: m, log: log, changed: make(chan struct{})}
}

// Run follows the store until ctx ends.
func (k *keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		if err := k.turn(ctx); err != nil && ctx.Err() == nil {
			k.log.Warn("store not looked at", "reason", err.Error())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// load takes the copy of an earlier life from disk. One that is damaged is left and said: it would
// be written over only by a copy of a store that answers.
func (k *keeper) load() {
	if k.cfg.StateDir == "" {
		return
	}
	if err := os.MkdirAll(k.cfg.StateDir, 0o700); err != nil {
		k.log.Warn("no directory for the copy of the definitions", "reason", err.Error())
	}
	m, known, err := loadMemory(k.cfg.StateDir)
	if err != nil {
		k.log.Warn("copy of the definitions not read, begins anew", "reason", err.Error())
		return
	}
	if known && m.Cluster == k.cfg.Cluster {
		k.mem, k.known = m, true
		k.setHolding(time.Now().Before(m.HoldUntil))
	}
}

// save writes the copy to disk. A disk that refuses stops no work: the copy in memory is as good
// while this process lives.
func (k *keeper) save() {
	if k.cfg.StateDir == "" {
		return
	}
	if err := saveMemory(k.cfg.StateDir, k.mem); err != nil {
		k.metrics.copyErrors.Inc()
		k.log.Warn("copy of the definitions not written", "reason", err.Error())
	}
}

// lead lets the keeper write for one term; nil ends that.
func (k *keeper) lead(f *fence) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fence = f
}

func (k *keeper) term() *fence {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.fence
}

// hold tells whether nothing may be pruned or collected now, and when to ask again.
func (k *keeper) hold() (bool, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.holding, k.changed
}

func (k *keeper) setHolding(h bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.holding == h {
		return
	}
	k.holding = h
	close(k.changed)
	k.changed = make(chan struct{})
}

// check looks at the store at once. An error means that nothing may be taken away now.
func (k *keeper) check(ctx context.Context) error {
	if err := k.turn(ctx); err != nil {
		return err
	}
	if held, _ := k.hold(); held {
		return errHold
	}
	return nil
}

// gated runs work while there is no hold: it is ended when one begins, and begun anew after it.
func (k *keeper) gated(ctx context.Context, run func(context.Context) error) error {
	for ctx.Err() == nil {
		held, changed := k.hold()
		if held {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		err := until(ctx, changed, run)
		if err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) && !errors.Is(err, errHold) {
			return err
		}
	}
	return nil
}

// until runs until the channel is closed or run returns.
func until(ctx context.Context, end <-chan struct{}, run func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		select {
		case <-end:
			cancel()
		case <-ctx.Done():
		}
	})
	return run(ctx)
}

// turn looks at the store once.
func (k *keeper) turn(ctx context.Context) error {
	k.turns.Lock()
	defer k.turns.Unlock()
	v, err := k.look(ctx)
	if err != nil {
		return fmt.Errorf("look at the store: %w", err)
	}
	continuity, err := k.judge(ctx, v)
	if err != nil {
		return fmt.Errorf("prove the store: %w", err)
	}
	heldBefore, rowsBefore := maps.Clone(k.mem.Held), len(k.mem.Rows)
	if continuity == kvstore.ContinuityBroken {
		agreed, err := k.broken(ctx, v)
		if err != nil || !agreed {
			return err
		}
	} else if err := k.follow(ctx, v, continuity); err != nil {
		return err
	}
	dirty, err := k.takeOver(ctx, v)
	if err != nil {
		return err
	}
	k.endHold(v)
	if dirty || continuity == kvstore.ContinuityBroken || len(k.mem.Rows) != rowsBefore || !maps.Equal(heldBefore, k.mem.Held) {
		k.save()
	}
	if f := k.term(); f != nil {
		return k.write(ctx, *f, v)
	}
	return nil
}

// view is the store at one revision.
type view struct {
	clusterID  uint64
	revision   int64
	epoch      kvstore.KV // without a key if there is none
	heartbeat  kvstore.KV
	restored   string           // the epoch in which an operator put rows back
	rows       map[string]int64 // of the cluster: key → mod revision
	nodes      map[string]bool
	confirming map[string]bool // nodes whose owners row speaks of this epoch
}

// ranges are the rows of the cluster that are kept.
func (k *keeper) ranges() []string {
	return []string{
		schema.DefinitionsPrefix, schema.VIPsPrefix,
		schema.ServicesPrefix + k.cfg.Cluster + "/",
	}
}

func (k *keeper) look(ctx context.Context) (view, error) {
	config := schema.ClusterConfigPrefix + k.cfg.Cluster
	nodes := schema.NodesPrefix + k.cfg.Cluster + "/"
	ops := []clientv3.Op{
		clientv3.OpGet(schema.EpochKey), clientv3.OpGet(schema.HeartbeatKey), clientv3.OpGet(restoredKey),
		clientv3.OpGet(config, clientv3.WithKeysOnly()),
		clientv3.OpGet(nodes, clientv3.WithPrefix(), clientv3.WithKeysOnly()),
		clientv3.OpGet(schema.OwnersPrefix, clientv3.WithPrefix()),
	}
	for _, prefix := range k.ranges() {
		ops = append(ops, clientv3.OpGet(prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly()))
	}
	res, err := k.client.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return view{}, err
	}
	v := view{
		clusterID: res.Header.ClusterId, revision: res.Header.Revision,
		rows: map[string]int64{}, nodes: map[string]bool{}, confirming: map[string]bool{},
	}
	for i, r := range res.Responses {
		for _, kv := range r.GetResponseRange().Kvs {
			key := string(kv.Key)
			switch i {
			case 0:
				v.epoch = kvstore.KV{Key: key, Value: kv.Value, ModRevision: kv.ModRevision}
			case 1:
				v.heartbeat = kvstore.KV{Key: key, Value: kv.Value, ModRevision: kv.ModRevision}
			case 2:
				v.restored = string(kv.Value)
			case 4:
				v.nodes[key[len(nodes):]] = true
			case 5:
				name := key[len(schema.OwnersPrefix):]
				o, err := schema.Owners().Decode(name, kv.Value)
				epoch, eerr := schema.DecodeEpoch(v.epoch.Value)
				v.confirming[name] = err == nil && eerr == nil && o.Complete && o.Epoch == epoch.ID && kv.ModRevision > v.epoch.ModRevision
			default:
				v.rows[key] = kv.ModRevision
			}
		}
	}
	return v, nil
}
