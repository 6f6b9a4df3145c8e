// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// GCConfig says how unused numbers are collected.
type GCConfig struct {
	// Cluster, ClusterID and MaxClusters are as in Config.
	Cluster     string
	ClusterID   uint32
	MaxClusters uint32
	// Interval is the time between two rounds. It must not be shorter than the lease of references:
	// a node that lost it has that long to write them again. Default 15 min.
	Interval time.Duration
	// Rate is how many numbers are removed per second. Default 2500 per minute.
	Rate rate.Limit
	// Rest is how long a freed number is not given out again. Default 24 h.
	Rest time.Duration
	// Away tells whether the control plane of a remote cluster is away: its nodes may believe in
	// numbers that were freed meanwhile, so no rest ends. Nil means never.
	Away func() bool
	// Fence is compared in every transaction that writes: nothing is removed and no rest ends once it
	// does not hold, and the round fails with kvstore.ErrFenced. Nil: none.
	Fence []clientv3.Cmp
	// Holding is as in Config. Meanwhile rounds do nothing: what refers to a number may only be
	// missing. Nil means never.
	Holding func() (bool, <-chan struct{})
}

// GC removes master keys that no node refers to. One runs per cluster, on the elected operator.
//
// A number goes when two rounds in a row found no reference to it and its master key was not
// written in between. Removal is a transaction that compares both once more, so it cannot cross an
// allocation. The number then rests, in the store.
type GC struct {
	cfg     GCConfig
	client  *kvstore.Client
	codec   schema.Codec[schema.IdentityKey, string]
	resting schema.Codec[schema.IdentityKey, schema.Resting]
	limit   *rate.Limiter
	log     *slog.Logger

	// Owned by Round: master keys found without a reference in the last round, with their
	// revisions; and when the numbers at rest were read.
	candidates map[string]int64
	restsRead  time.Time

	mu    sync.Mutex
	stats GCStats
	rests map[string]rest // by key; nil: they have to be read
}

// GCStats is what a GC has done and seen.
type GCStats struct {
	Rounds  uint64
	Held    uint64 // of the rounds: they did nothing, because the store was on hold
	Removed uint64 // numbers, since the start
	// Numbers, Unreferenced and Resting are what the last round counted.
	Numbers, Unreferenced, Resting int
	LastRound                      time.Time // when it ended
	LastError                      error     // of the last round
}

// NewGC returns a GC.
func NewGC(cfg GCConfig, client *kvstore.Client, log *slog.Logger) (*GC, error) {
	if err := schema.CheckClusterName(cfg.Cluster); err != nil {
		return nil, fmt.Errorf("identity gc: %w", err)
	}
	if cfg.Interval <= 0 {
		cfg.Interval = 15 * time.Minute
	}
	if cfg.Rate <= 0 {
		cfg.Rate = 2500. / 60
	}
	if cfg.Rest <= 0 {
		cfg.Rest = 24 * time.Hour
	}
	scope := schema.Scope{Cluster: cfg.Cluster, ClusterID: cfg.ClusterID, MaxClusters: cfg.MaxClusters}
	return &GC{
		cfg: cfg, client: client, log: log, codec: schema.Identities(scope), resting: schema.Restings(scope),
		// A burst of one batch, so that a batch can be taken at once.
		limit: rate.NewLimiter(cfg.Rate, gcBatch),
	}, nil
}

// Stats returns the counters.
func (g *GC) Stats() GCStats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stats
}

// Run makes a round every Interval until ctx ends. A round that fails is left to the next one.
func (g *GC) Run(ctx context.Context) error {
	tick := time.NewTicker(g.cfg.Interval)
	defer tick.Stop()
	for {
		if err := g.Round(ctx); err != nil && ctx.Err() == nil {
			g.log.Warn("identity collection was cut short", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// gcBatch is how many numbers one transaction removes; etcd's limit is 128.
const gcBatch = 64

// master is a number as a round found it.
type master struct {
	id     ID
	key    string
	labels string
	rev    int64
	rivals bool // the labels have more numbers than this one
	others bool // there are references to a rival
}

// Round looks at all numbers once, and removes those that the round before found unused too.
func (g *GC) Round(ctx context.Context) error {
	err := g.round(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stats.Rounds++
	g.stats.LastRound = time.Now()
	g.stats.LastError = err
	return err
}

// held tells whether the store is on hold.
func (g *GC) held() bool {
	if g.cfg.Holding == nil {
		return false
	}
	held, _ := g.cfg.Holding()
	return held
}

func (g *GC) round(ctx context.Context) error {
	if g.held() {
		g.candidates = nil // it takes two rounds again afterwards
		g.mu.Lock()
		g.stats.Held++
		g.rests = nil
		g.mu.Unlock()
		return nil
	}
	masters, err := g.list(ctx)
	if err != nil {
		return err
	}
	unused, err := g.unreferenced(ctx, masters)
	if err != nil {
		return err
	}
	var due []master
	candidates := make(map[string]int64, len(unused))
	for _, m := range unused {
		if g.candidates[m.key] == m.rev {
			due = append(due, m)
		} else {
			candidates[m.key] = m.rev
		}
	}
	g.candidates = candidates
	g.mu.Lock()
	g.stats.Numbers, g.stats.Unreferenced = len(masters), len(unused)
	g.mu.Unlock()
	return errors.Join(g.remove(ctx, due), g.wakeResting(ctx))
}

// list returns the numbers of this cluster. What is not one of them stays untouched.
func (g *GC) list(ctx context.Context) ([]master, error) {
	l, err := g.client.List(ctx, g.codec.Prefix, kvstore.ListOptions{})
	if err != nil {
		return nil, err
	}
	masters := make([]master, 0, len(l.KVs))
	byLabels := make(map[string]int, len(l.KVs))
	first, last := Range(g.cfg.ClusterID, g.cfg.MaxClusters)
	for _, kv := range l.KVs {
		k, err := g.codec.ParseKey(kv.Key[len(g.codec.Prefix):])
		if id := ID(k.ID); err == nil && id >= first && id <= last {
			masters = append(masters, master{id: id, key: kv.Key, labels: string(kv.Value), rev: kv.ModRevision})
			byLabels[string(kv.Value)]++
		}
	}
	for i := range masters {
		masters[i].rivals = byLabels[masters[i].labels] > 1
	}
	return masters, nil
}

// unreferenced returns the masters to which there is no reference. All references are read at once:
// to ask for each number's costs the store ten times as much.
func (g *GC) unreferenced(ctx context.Context, masters []master) ([]master, error) {
	l, err := g.client.List(ctx, schema.IdentityValuesPrefix, kvstore.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("look for references: %w", err)
	}
	rivals := map[string]bool{} // by labels
	for _, m := range masters {
		rivals[m.labels] = m.rivals
	}
	type reference struct{ labels, number string }
	refs, used := map[string]bool{}, map[reference]bool{} // used: of rivals only
	for _, kv := range l.KVs {
		// Labels may have slashes, an address has none. What else stands under labels counts too.
		tail := kv.Key[len(schema.IdentityValuesPrefix):]
		for at := strings.LastIndexByte(tail, '/'); at >= 0; at = strings.LastIndexByte(tail[:at], '/') {
			labels := tail[:at]
			refs[labels] = true
			if rivals[labels] {
				used[reference{labels, string(kv.Value)}] = true
			}
		}
	}
	var unused []master
	for _, m := range masters {
		inUse := refs[m.labels]
		if m.rivals {
			m.others, inUse = inUse, used[reference{m.labels, string(schema.EncodeIdentityReference(uint32(m.id)))}]
		}
		if !inUse {
			unused = append(unused, m)
		}
	}
	return unused, nil
}

// gcParallel is how many transactions of removals are under way at once.
const gcParallel = 4

// remove removes masters, unless something has changed since they were looked at. One transaction
// holds many removals, each with its own condition.
func (g *GC) remove(ctx context.Context, due []master) error {
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(gcParallel)
	for batch := range slices.Chunk(due, gcBatch) {
		if err := g.limit.WaitN(ctx, len(batch)); err != nil {
			return errors.Join(work.Wait(), err)
		}
		if g.held() {
			break
		}
		work.Go(func() error { return g.removeBatch(ctx, batch) })
	}
	return work.Wait()
}

func (g *GC) removeBatch(ctx context.Context, batch []master) error {
	ops, now := make([]clientv3.Op, len(batch)), time.Now()
	for i, m := range batch {
		op, err := g.removal(m, now)
		if err != nil {
			return err
		}
		ops[i] = op
	}
	resp, err := g.commit(ctx, ops...)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		g.rests = nil // some may rest now
		return fmt.Errorf("remove numbers: %w", err)
	}
	for i, m := range batch {
		if !resp.Responses[i].GetResponseTxn().Succeeded {
			continue
		}
		g.stats.Removed++
		if g.rests != nil {
			g.rests[restingKey(m.id)] = rest{resp.Header.Revision, now}
		}
	}
	return nil
}

// removal is the transaction that removes one master.
func (g *GC) removal(m master, now time.Time) (clientv3.Op, error) {
	row, err := g.resting.Encode(schema.IdentityKey{ID: uint32(m.id)}, schema.Resting{Freed: now, Labels: m.labels})
	if err != nil {
		return clientv3.Op{}, err
	}
	cmps := []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(m.key), "=", m.rev),
		// A peer that has the lock is about to refer to a number it has seen.
		nothingUnder(schema.IdentityLockPath(m.labels) + "/"),
	}
	refs := schema.IdentityReferencesPrefix(m.labels)
	if m.others {
		// Of an empty range a comparison of values is never true; then the next round decides.
		cmps = append(cmps,
			clientv3.Compare(clientv3.Value(refs).WithPrefix(), "!=", string(schema.EncodeIdentityReference(uint32(m.id)))))
	} else {
		cmps = append(cmps, nothingUnder(refs))
	}
	return clientv3.OpTxn(cmps, []clientv3.Op{
		clientv3.OpDelete(m.key),
		clientv3.OpPut(restingKey(m.id), string(row)),
	}, nil), nil
}

// commit sends a transaction behind the fence.
func (g *GC) commit(ctx context.Context, ops ...clientv3.Op) (*clientv3.TxnResponse, error) {
	resp, err := g.client.Txn(ctx).If(g.cfg.Fence...).Then(ops...).Commit()
	if err == nil && !resp.Succeeded {
		err = kvstore.ErrFenced
	}
	return resp, err
}
