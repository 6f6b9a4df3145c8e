// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
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

	// guard is what the guard of the mirror knows; nil: there is none.
	guard func() kvstore.GuardStatus
	wake  chan struct{} // asks for a turn

	turns   sync.Mutex // one turn at a time; guards what follows
	mem     memory
	known   bool // mem says something
	mods    map[string]int64
	looked  time.Time // the last turn that had an answer
	said    word
	stuck   bool   // the hold does not end by itself, and that was said
	due     string // the epoch that the guard found in another store; "": none
	guarded struct {
		generation uint64
		epoch      string
	}

	mu      sync.Mutex
	fence   *fence // nil: we do not lead
	holding bool
	changed chan struct{} // closed and replaced when holding changes
}

// keepEvery is how often the store is looked at, if nothing asks for it earlier.
const keepEvery = 2 * time.Second

func newKeeper(cfg Config, c *kvstore.Client, m *metrics, log *slog.Logger) *keeper {
	return &keeper{cfg: cfg, client: c, metrics: m, log: log, changed: make(chan struct{}), wake: make(chan struct{}, 1)}
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
		case <-k.wake:
		}
	}
}

// nudge asks for a turn.
func (k *keeper) nudge() {
	select {
	case k.wake <- struct{}{}:
	default:
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
		k.guarded.epoch = epochID(m.Epoch)
		k.setHolding(m.HoldLeft > 0)
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
	if k.owed(v) {
		continuity = kvstore.ContinuityBroken
	}
	heldBefore, rowsBefore, heldAt := maps.Clone(k.mem.Held), len(k.mem.Rows), k.mem.HeldAt
	holding, _ := k.hold()
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
	k.endHold(v, time.Now())
	held, _ := k.hold()
	if dirty || continuity == kvstore.ContinuityBroken || len(k.mem.Rows) != rowsBefore || !maps.Equal(heldBefore, k.mem.Held) ||
		held != holding || heldAt != k.mem.HeldAt {
		k.save()
	}
	if f := k.term(); f != nil {
		if err := k.write(ctx, *f, v); err != nil {
			return err
		}
		return k.say(ctx, *f, v)
	}
	return nil
}

// view is the store at one revision.
type view struct {
	clusterID  uint64
	revision   int64
	epoch      kvstore.KV // without a key if there is none
	heartbeat  kvstore.KV
	decision   kvstore.KV       // without a key if there is none
	restored   string           // the epoch in which an operator put rows back
	rows       map[string]int64 // of the cluster: key → mod revision
	nodes      map[string]bool
	confirming map[string]bool // nodes whose owners row speaks of this epoch
	left       map[string]bool // those of them whose row was their last word
}

// ranges are the rows of the cluster that are kept.
func (k *keeper) ranges() []string {
	return []string{
		schema.DefinitionsPrefix, schema.VIPsPrefix,
		schema.ServicesPrefix + k.cfg.Cluster + "/",
		schema.PeersPrefix, // who left the mesh must not come back with the store
	}
}

func (k *keeper) look(ctx context.Context) (view, error) {
	config := schema.ClusterConfigPrefix + k.cfg.Cluster
	nodes := schema.NodesPrefix + k.cfg.Cluster + "/"
	ops := []clientv3.Op{
		clientv3.OpGet(schema.EpochKey), clientv3.OpGet(schema.HeartbeatKey), clientv3.OpGet(schema.RestoredKey),
		clientv3.OpGet(schema.DecisionKey),
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
		rows: map[string]int64{}, nodes: map[string]bool{}, confirming: map[string]bool{}, left: map[string]bool{},
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
			case 3:
				v.decision = kvstore.KV{Key: key, Value: kv.Value, ModRevision: kv.ModRevision}
			case 5:
				v.nodes[key[len(nodes):]] = true
			case 6:
				name := key[len(schema.OwnersPrefix):]
				o, err := schema.Owners().Decode(name, kv.Value)
				epoch, eerr := schema.DecodeEpoch(v.epoch.Value)
				v.confirming[name] = err == nil && eerr == nil && o.Complete && o.Epoch == epoch.ID && kv.ModRevision > v.epoch.ModRevision
				v.left[name] = v.confirming[name] && o.Left
			default:
				v.rows[key] = kv.ModRevision
			}
		}
	}
	return v, nil
}
