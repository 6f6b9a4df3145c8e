// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// remotes tells whether the control plane of another cluster is away, by its heartbeat: the nodes of
// one that is may believe in numbers that were freed meanwhile. A cluster counts as away until its
// heartbeat was seen to move, and one that left the mesh when its client file is gone.
type remotes struct {
	dir, own string // of etcd client files, one for each cluster and named after it; ours is skipped
	log      *slog.Logger

	mu   sync.Mutex
	seen map[string]sighting // by cluster; nil: nothing is known yet
}

// sighting is the heartbeat of a cluster as it was seen last.
type sighting struct {
	value []byte
	moved time.Time // when it was seen to be another one; zero: never
}

// How often heartbeats are looked at, how long one may stand still, and how long a cluster may take to
// answer.
const (
	remotesEvery   = 30 * time.Second
	remotesSilence = 3 * time.Minute
	remotesAnswer  = 5 * time.Second
)

// Run looks at intervals until ctx ends.
func (r *remotes) Run(ctx context.Context) error {
	return every(ctx, remotesEvery, func() {
		if err := r.look(ctx, time.Now()); err != nil && ctx.Err() == nil {
			r.log.Info("heartbeats of other clusters not seen", "reason", err.Error())
		}
	})
}

// away tells whether a cluster of the mesh is away, or nobody knows.
func (r *remotes) away(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		return true
	}
	for _, b := range r.seen {
		if b.moved.IsZero() || now.Sub(b.moved) > remotesSilence {
			return true
		}
	}
	return false
}

// look asks every cluster once. One that cannot be asked keeps what was seen of it.
func (r *remotes) look(ctx context.Context, now time.Time) error {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return fmt.Errorf("clustermesh-dir: %w", err) // what was in it is still in the mesh
	}
	r.mu.Lock()
	old := r.seen
	r.mu.Unlock()
	next := map[string]sighting{}
	var errs []error
	for _, e := range entries {
		name := e.Name()
		path := filepath.Join(r.dir, name)
		data, err := os.ReadFile(path)
		if name == r.own || strings.HasPrefix(name, ".") || err == nil && !bytes.Contains(data, []byte("endpoints:")) {
			continue // certificates lie beside client files
		}
		if st, serr := os.Stat(path); serr == nil && st.IsDir() {
			continue
		}
		b := old[name]
		value, err := r.heartbeat(ctx, path)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		case len(value) == 0: // its operator is down, or never ran
		case b.value == nil:
			b.value = value
		case !bytes.Equal(b.value, value):
			b = sighting{value, now}
		}
		next[name] = b
	}
	r.mu.Lock()
	r.seen = next
	r.mu.Unlock()
	return errors.Join(errs...)
}

// heartbeat reads that of one cluster, nothing if it has none.
func (r *remotes) heartbeat(ctx context.Context, file string) (_ []byte, err error) {
	cfg, err := kvstore.ReadConfigFile(file)
	if err != nil {
		return nil, err
	}
	cfg.RequestTimeout = remotesAnswer
	c, err := kvstore.New(cfg, r.log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	kv, _, err := c.Get(ctx, schema.HeartbeatKey)
	return kv.Value, err
}
