// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/internal/stats"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// changesASecond is how many rows change a second in a mesh of the size that is simulated.
const changesASecond = 325

// copiesTimeout is how long a mirror may take for all clusters, or the last change to arrive.
const copiesTimeout = 10 * time.Minute

// copying is the row copies: a store of ours, one that simulates the others, and a mirror between.
type copying struct {
	clusters  int
	churn     time.Duration
	dir       string
	own, far  *store
	ours, sim *kvstore.Client
	filled    time.Duration // what bare transactions took for the rows of all clusters
	mirror    *child
	remotes   *child
}

// measureCopies is the row copies.
func measureCopies(ctx context.Context, cfg Config) (_ []Line, err error) {
	if cfg.Remotes < 1 || cfg.Remotes > maxRemotes {
		return nil, fmt.Errorf("%d remotes: want 1 to %d", cfg.Remotes, maxRemotes)
	}
	c := &copying{clusters: cfg.Remotes, churn: cfg.Churn}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := c.begin(ctx); err != nil {
		return nil, err
	}
	progress := func(format string, args ...any) {
		if cfg.Progress != nil {
			fmt.Fprintf(cfg.Progress, "copies: "+format+"\n", args...)
		}
	}
	rows := c.clusters * remoteRows
	ready, err := c.copyAll(ctx)
	if err != nil {
		return nil, err
	}
	cpuReady, err := c.mirror.cpu()
	if err != nil {
		return nil, err
	}
	progress("%d rows of %d clusters in %v (processor time %v), as bare transactions %v", rows, c.clusters, ready, cpuReady, c.filled)
	bare, copied, err := c.change(ctx)
	if err != nil {
		return nil, err
	}
	cpu, err := c.mirror.cpu()
	if err != nil {
		return nil, err
	}
	memory, err := c.mirror.memory()
	if err != nil {
		return nil, err
	}
	cpu -= cpuReady
	lines := []Line{
		pairedLine("copies", fmt.Sprintf("%d rows of %d clusters: bare transactions / all copies complete", rows, c.clusters), 0,
			[]float64{ready.Seconds()}, []float64{c.filled.Seconds()}),
	}
	for _, q := range []float64{0.5, 0.99} {
		ours, _ := stats.Quantile(copied, q)
		other, _ := stats.Quantile(bare, q)
		lines = append(lines, pairedLine("copies", fmt.Sprintf("p%.0f of the lag of %d changes, %d/s: bare watch / copy", 100*q, len(copied), changesASecond), 0,
			[]float64{ours}, []float64{other}))
	}
	what := fmt.Sprintf("the mirror: %.2f processors at %d changes/s, %.0f us each; %d MB at the most, %.1f kB a row",
		cpu.Seconds()/c.churn.Seconds(), changesASecond, 1e6*cpu.Seconds()/float64(max(1, len(copied))), memory>>20, float64(memory)/1e3/float64(rows))
	progress("%s", what)
	return append(lines, Line{Row: "copies", What: what, Met: true, Valid: true}), nil
}

// begin starts the stores, fills the one of the others, and starts their faces.
func (c *copying) begin(ctx context.Context) (err error) {
	if c.dir, err = os.MkdirTemp("", "weft-bench-"); err != nil {
		return err
	}
	if c.own, err = startStore(ctx); err != nil {
		return err
	}
	if c.far, err = startStore(ctx); err != nil {
		return err
	}
	if c.ours, err = c.own.client(c.own.URL); err != nil {
		return err
	}
	if c.sim, err = c.far.client(c.far.URL); err != nil {
		return err
	}
	configs := schema.ClusterConfigs()
	config, err := configs.Encode(scope().Cluster, schema.ClusterConfig{ID: scope().ClusterID})
	if err != nil {
		return err
	}
	err = errors.Join(setUp(ctx, c.ours), fill(ctx, c.ours, []clientv3.Op{clientv3.OpPut(configs.Prefix+scope().Cluster, string(config))}))
	if err != nil {
		return err
	}
	began := time.Now()
	err = atOnce(8, c.clusters, func(i int) error {
		ops, err := remoteOps(remoteScope(i))
		if err != nil {
			return err
		}
		return fill(ctx, c.sim, ops)
	})
	if err != nil {
		return err
	}
	c.filled = time.Since(began)
	task := remotesTask{Etcd: strings.TrimPrefix(c.far.URL, "http://")}
	for i := range c.clusters {
		task.Clusters = append(task.Clusters, remoteScope(i).Cluster)
	}
	var ready remotesReady
	if c.remotes, err = startTask(ctx, "remotes", task, &ready); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(c.dir, "mesh"), 0o700); err != nil {
		return err
	}
	for i, address := range ready.Addresses {
		file := filepath.Join(c.dir, "mesh", task.Clusters[i])
		if err := os.WriteFile(file, fmt.Appendf(nil, "endpoints: [%q]\n", "http://"+address), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// close ends all processes and removes what they left.
func (c *copying) close() error {
	var errs []error
	for _, p := range []*child{c.mirror, c.remotes} {
		if p != nil {
			errs = append(errs, p.stop())
		}
	}
	for _, s := range []*store{c.own, c.far} {
		if s != nil {
			errs = append(errs, s.stop())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}

// copyAll starts the mirror and returns how long it took until it said of each cluster that its copy is
// complete.
func (c *copying) copyAll(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	var err error
	task := copyTask{Etcd: c.own.URL, Dir: filepath.Join(c.dir, "mesh"), State: filepath.Join(c.dir, "state")}
	if c.mirror, err = startTask(ctx, "copies", task, &struct{}{}); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, copiesTimeout)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		n, reason, err := c.complete(ctx)
		switch {
		case err != nil:
			return 0, err
		case n == c.clusters:
			return time.Since(began), c.verify(ctx)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("%d of %d copies are complete, one is not: %q: %w", n, c.clusters, reason, ctx.Err())
		}
	}
}

// complete is how many copies are complete, and why one is not.
func (c *copying) complete(ctx context.Context) (n int, reason string, err error) {
	codec := schema.Mirrors()
	list, err := c.ours.List(ctx, codec.Prefix, kvstore.ListOptions{})
	if err != nil {
		return 0, "", err
	}
	for _, kv := range list.KVs {
		m, err := codec.Decode(strings.TrimPrefix(kv.Key, codec.Prefix), kv.Value)
		switch {
		case err != nil:
			return 0, "", err
		case m.Complete:
			n++
		default:
			reason = kv.Key + ": " + m.Reason
		}
	}
	return n, reason, nil
}

// verify counts what stands as copies.
func (c *copying) verify(ctx context.Context) error {
	resp, err := c.ours.Etcd().Get(ctx, schema.CachePrefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err == nil && resp.Count != int64(c.clusters*remoteRows) {
		err = fmt.Errorf("%d rows stand as copies, want %d", resp.Count, c.clusters*remoteRows)
	}
	return err
}

// change changes rows of the other clusters, and returns how many seconds later each change was seen by a
// bare watch of their store, and as a copy in ours.
func (c *copying) change(ctx context.Context) (bare, copied []float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.churn+copiesTimeout)
	defer cancel()
	n := int(c.churn.Seconds() * changesASecond)
	if most := c.clusters * remoteEndpoints; n > most {
		return nil, nil, fmt.Errorf("%d changes of %d rows: a row may change once, take more clusters or a shorter churn", n, most)
	}
	puts := &putTimes{at: map[string]time.Time{}}
	var g errgroup.Group
	far := c.sim.Etcd().Watch(ctx, "sim/", clientv3.WithPrefix())
	ours := c.ours.Etcd().Watch(ctx, schema.CachedIPsPrefix, clientv3.WithPrefix())
	g.Go(func() (err error) {
		bare, err = puts.lags(far, n, func(key string) string {
			cluster, tail, _ := strings.Cut(strings.TrimPrefix(key, "sim/"), "/")
			return cluster + "/" + strings.TrimPrefix(tail, schema.IPsPrefix)
		})
		return err
	})
	g.Go(func() (err error) {
		copied, err = puts.lags(ours, n, func(key string) string { return strings.TrimPrefix(key, schema.CachedIPsPrefix) })
		return err
	})
	var writers errgroup.Group
	writers.SetLimit(putsAtOnce)
	err = paced(ctx, n, changesASecond, func(i int) error {
		s := remoteScope(i % c.clusters)
		key, value, err := remoteEndpoint(s, i/c.clusters, 1)
		if err != nil {
			return err
		}
		writers.Go(func() error {
			puts.note(s.Cluster + "/" + strings.TrimPrefix(key, schema.IPsPrefix))
			_, err := c.sim.Put(ctx, remotePrefix(s.Cluster)+key, value, 0)
			return err
		})
		return nil
	})
	if err = errors.Join(writers.Wait(), err); err != nil {
		cancel()
	}
	return bare, copied, errors.Join(g.Wait(), err)
}

// putTimes are when rows were about to be written.
type putTimes struct {
	mu sync.Mutex
	at map[string]time.Time // by cluster/address
}

func (p *putTimes) note(row string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at[row] = time.Now()
}

// lags takes events until n rows that were written have come, and returns how long each took. row is the
// one that a key stands for.
func (p *putTimes) lags(events clientv3.WatchChan, n int, row func(key string) string) (seconds []float64, err error) {
	for resp := range events {
		if err := resp.Err(); err != nil {
			return seconds, err
		}
		now := time.Now()
		p.mu.Lock()
		for _, ev := range resp.Events {
			if at, ok := p.at[row(string(ev.Kv.Key))]; ok {
				seconds = append(seconds, now.Sub(at).Seconds())
			}
		}
		p.mu.Unlock()
		if len(seconds) >= n {
			return seconds, nil
		}
	}
	return seconds, fmt.Errorf("%d of %d changes have come", len(seconds), n)
}
