// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore/schema"
)

// ElectorConfig says what is elected. Name and ID are required.
type ElectorConfig struct {
	// Name is the office, ID who we are: what status shows to others.
	Name, ID string
	// Prefix is where the candidates' keys stand, with the trailing slash: an office that others stand
	// for too has a place of its own. Default schema.ElectionsPrefix, the name and a slash.
	Prefix string
	// Follow says how the candidates are watched. Its Source is not used.
	Follow WatchConfig
	// Check is how often the age of our lease is looked at. Default a tenth of its TTL.
	Check time.Duration
}

// ElectorStatus is what an elector knows about itself.
type ElectorStatus struct {
	Leading bool
	Since   time.Time // of Leading
	Leader  string    // the ID of the leader as stored, "" if there is none or it is not known
	Terms   uint64    // how often we led
}

// Elector makes one of several processes the leader. Each candidate puts a key on its own lease;
// the oldest leads. A leader that cannot refresh its lease steps down before the lease ends.
//
// Two leaders at one time are prevented as far as clocks run at the same speed. What a leader does
// must be right all the same if two do it.
type Elector struct {
	c      *Client
	sess   *Session
	cfg    ElectorConfig
	prefix string
	log    *slog.Logger
	seen   candidates

	mu sync.Mutex
	st ElectorStatus
}

// NewElector returns a candidate. Its session should be of its own, short and with Revoke, so that
// another takes over at once when this one ends.
func NewElector(c *Client, sess *Session, cfg ElectorConfig, log *slog.Logger) *Elector {
	if cfg.Check <= 0 {
		cfg.Check = sess.cfg.TTL / 10
	}
	if cfg.Prefix == "" {
		cfg.Prefix = schema.ElectionsPrefix + cfg.Name + "/"
	}
	e := &Elector{c: c, sess: sess, cfg: cfg, prefix: cfg.Prefix, log: log}
	e.seen.changed = make(chan struct{}, 1)
	e.seen.keys = map[string]KV{}
	return e
}

// Status returns what the elector knows about itself.
func (e *Elector) Status() ElectorStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.st
}

// Fence is what a transaction compares so that it does nothing once we lead no longer, however late it
// arrives. It is asked for at the beginning of a term; nil means that the term is over already.
func (e *Elector) Fence() []clientv3.Cmp {
	lease, _ := e.sess.Current()
	own, ok := e.seen.get(e.prefix + leaseName(lease.ID))
	if !ok || lease.Generation == 0 {
		return nil
	}
	return []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(own.Key), "=", own.CreateRevision)}
}

// Run calls lead while we lead, until ctx ends. The context of lead ends when we no longer do; then
// lead must return soon. If lead returns by itself, with or without an error, that is the end of
// Run too.
func (e *Elector) Run(ctx context.Context, lead func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	f := &follower{c: e.c, cfg: e.cfg.Follow.follow(e.prefix), sink: &e.seen, log: e.log}
	wg.Go(func() { _ = f.run(ctx) })
	check := time.NewTicker(e.cfg.Check)
	defer check.Stop()
	var term *term
	defer func() { term.end() }()
	defer e.set(false)
	for {
		lease, leaseChanged := e.sess.Current()
		leading, err := e.evaluate(ctx, lease)
		if err != nil && ctx.Err() == nil {
			e.log.Info("candidacy not stored", "election", e.cfg.Name, "error", err)
		}
		switch {
		case leading && term == nil:
			now := newTerm(ctx)
			wg.Go(func() { now.done <- lead(now.ctx) })
			term = now
			e.log.Info("leading", "election", e.cfg.Name)
			e.set(true)
			continue
		case !leading && term != nil:
			e.log.Info("no longer leading", "election", e.cfg.Name)
			e.set(false)
			term.end()
			term = nil
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-term.returned():
			term = nil
			return err
		case <-e.seen.changed:
		case <-leaseChanged:
		case <-check.C:
		}
	}
}

// term is one time of leading.
type term struct {
	ctx    context.Context // what lead runs under
	cancel context.CancelFunc
	done   chan error
}

func newTerm(ctx context.Context) *term {
	t := &term{done: make(chan error, 1)}
	t.ctx, t.cancel = context.WithCancel(ctx)
	return t
}

// returned is never ready for no term.
func (t *term) returned() <-chan error {
	if t == nil {
		return nil
	}
	return t.done
}

// end tells lead to end and waits for it.
func (t *term) end() {
	if t != nil {
		t.cancel()
		<-t.done
	}
}

// evaluate makes us a candidate if we are none and tells whether we lead.
func (e *Elector) evaluate(ctx context.Context, lease Lease) (bool, error) {
	first, known := e.seen.first()
	e.mu.Lock()
	e.st.Leader = string(first.Value)
	e.mu.Unlock()
	if lease.Generation == 0 || !known {
		return false, nil
	}
	key := e.prefix + leaseName(lease.ID)
	if _, stands := e.seen.get(key); !stands {
		_, err := e.c.Txn(ctx).If(clientv3.Compare(clientv3.Version(key), "=", 0)).
			Then(clientv3.OpPut(key, e.cfg.ID, clientv3.WithLease(lease.ID))).Commit()
		if err != nil {
			return false, fmt.Errorf("election %s: %w", e.cfg.Name, err)
		}
		return false, nil // the watch brings it
	}
	st := e.sess.Status()
	safe := st.TTL - max(st.TTL/10, e.cfg.Check)
	return first.Key == key && time.Since(st.Refreshed) < safe, nil
}

func (e *Elector) set(leading bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if leading && !e.st.Leading {
		e.st.Since = time.Now()
		e.st.Terms++
	}
	e.st.Leading = leading
}

// candidates is what stands under an election's prefix.
type candidates struct {
	changed chan struct{} // one slot

	mu    sync.Mutex
	keys  map[string]KV
	known bool          // listed at least once
	next  map[string]KV // of the list in progress
}

// first is the oldest candidate. known is false before the first list.
func (c *candidates) first() (first KV, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, kv := range c.keys {
		if first.Key == "" || kv.CreateRevision < first.CreateRevision {
			first = kv
		}
	}
	return first, c.known
}

func (c *candidates) get(key string) (KV, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kv, ok := c.keys[key]
	return kv, ok
}

func (c *candidates) page(kvs []KV, restart bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if restart {
		c.next = map[string]KV{}
	}
	for _, kv := range kvs {
		c.next[kv.Key] = kv
	}
}

func (c *candidates) listed(context.Context, int64, Continuity) {
	c.mu.Lock()
	c.keys, c.next, c.known = c.next, nil, true
	c.mu.Unlock()
	c.tell()
}

func (c *candidates) events(_ context.Context, evs []event) {
	c.mu.Lock()
	for _, ev := range evs {
		if ev.Deleted {
			delete(c.keys, ev.Key)
		} else {
			c.keys[ev.Key] = ev.KV
		}
	}
	c.mu.Unlock()
	c.tell()
}

func (c *candidates) confirmed(int64, time.Time) {}

func (c *candidates) tell() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}
