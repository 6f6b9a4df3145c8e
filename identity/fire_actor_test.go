// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// actor is a node of a schedule: it allocates and releases, and starts again after a crash with what
// its endpoints have.
type actor struct {
	name       string
	fire       *fire
	chaos      *chaos
	rng        *rand.Rand
	stop       func()
	leases     []clientv3.LeaseID // of its lives before
	crashed    atomic.Bool
	restarting atomic.Bool
	mirror     *gate

	mu     sync.Mutex
	alloc  *Allocator // nil for a peer
	peer   *peer
	lease  func() (kvstore.Lease, <-chan struct{})
	held   map[string]*tenure // by set, one user each
	frozen bool
}

// start lets a node run until it is stopped or crashes.
func (a *actor) start() {
	t := a.fire.t
	c := a.fire.server.Client()
	c.Etcd().KV = chaosKV{KV: c.Etcd().KV, chaos: a.chaos}
	log := kvstoretest.Log(t)
	session := kvstore.NewSession(c, kvstore.SessionConfig{TTL: time.Minute, Refresh: 200 * time.Millisecond, MinBackoff: time.Millisecond}, log)
	runs := []func(context.Context) error{session.Run}
	a.mu.Lock()
	a.lease = session.Current
	if a.peer != nil {
		a.peer.client, a.peer.session = c, session
	} else {
		seen := state.NewTable[schema.IdentityKey]("seen", state.Equal[string])
		known := state.NewTable[schema.IdentityKey]("identities", state.Equal[string])
		watch := kvstore.NewWatch(c, schema.Identities(c3), seen, kvstore.WatchConfig{Source: "etcd"}, log)
		var err error
		if a.alloc, err = NewAllocator(Config{
			Cluster: "c3", ClusterID: 3, Node: netip.MustParseAddr(a.name), SyncInterval: 250 * time.Millisecond,
		}, c, session, known, log); err != nil {
			t.Error(err)
		}
		a.alloc.known.last = a.alloc.known.first + 99 // they meet more often
		runs = append(runs, watch.Run, a.alloc.Run, func(ctx context.Context) error { return feed(ctx, a.mirror, seen, known) })
	}
	a.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	for _, run := range runs {
		g.Go(func() error { return run(ctx) })
	}
	a.stop = sync.OnceFunc(func() {
		cancel()
		_ = g.Wait() // ctx ended
	})
	a.crashed.Store(false)
	if a.peer == nil {
		a.chaos.crashAfter(20+a.rng.IntN(200), func() { a.crashed.Store(true); cancel() })
	}
}

// get allocates a set, and starts the node again as often as it crashes over it.
func (a *actor) get(labels Labels, old ID, patience time.Duration) (ID, error) {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		var id ID
		var err error
		if a.peer != nil {
			if id, err = a.peer.allocate(ctx, labels); err != nil && ctx.Err() == nil {
				cancel()
				continue // it tries until it has one
			}
		} else {
			crash := make(chan struct{})
			go func() { // a crash ends the caller too
				defer close(crash)
				tick := time.NewTicker(5 * time.Millisecond)
				defer tick.Stop()
				for !a.crashed.Load() && ctx.Err() == nil {
					<-tick.C
				}
				cancel()
			}()
			id, err = a.alloc.Restore(ctx, labels, old)
			cancel()
			<-crash
		}
		cancel()
		if err != nil && a.crashed.Load() {
			a.restart()
			continue
		}
		return id, err
	}
}

// restart starts a node that crashed. Its endpoints have lived on, and their numbers are wanted back.
func (a *actor) restart() {
	a.restarting.Store(true)
	defer a.restarting.Store(false)
	a.stop()
	if lease, _ := a.lease(); lease.ID != 0 {
		a.leases = append(a.leases, lease.ID)
	}
	a.start()
	for _, labels := range a.fire.sets {
		a.mu.Lock()
		u := a.held[labels.String()]
		a.mu.Unlock()
		if u == nil {
			continue
		}
		id, err := a.get(labels, u.id, 30*time.Second)
		if err != nil {
			a.fire.t.Errorf("%s: restore %v after a crash: %v", a.name, labels, err)
			continue
		}
		if id != u.id {
			a.note(labels, id)
		}
	}
}

// note records that this node has a number for a set.
func (a *actor) note(labels Labels, id ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	text := labels.String()
	if u := a.held[text]; u != nil {
		a.fire.history.end(u)
	}
	a.held[text] = a.fire.history.begin(tenure{node: a.name, labels: text, id: id, lapsed: a.frozen})
}

// step does one thing.
func (a *actor) step() {
	if a.crashed.Load() {
		a.restart()
	}
	labels := a.fire.sets[a.rng.IntN(len(a.fire.sets))]
	text := labels.String()
	a.mu.Lock()
	u := a.held[text]
	a.mu.Unlock()
	switch {
	case u != nil:
		a.mu.Lock()
		a.fire.history.end(u)
		delete(a.held, text)
		a.mu.Unlock()
		if a.peer == nil {
			a.alloc.Release(labels)
			return
		}
		for a.peer.release(context.Background(), labels) != nil {
		}
	case a.peer == nil && a.rng.IntN(10) == 0: // somebody who gives up
		if _, err := a.get(labels, Unknown, time.Duration(a.rng.IntN(int(3*time.Millisecond)))); err == nil {
			a.alloc.Release(labels)
		}
	default:
		id, err := a.get(labels, Unknown, 30*time.Second)
		if err != nil {
			a.fire.t.Errorf("%s: allocate %v: %v", a.name, labels, err)
			return
		}
		a.note(labels, id)
	}
}

// settled makes a node look at all it uses once, as it does within each interval of the collector.
func (a *actor) settled(ctx context.Context) {
	if a.peer != nil {
		return
	}
	a.mu.Lock()
	alloc := a.alloc
	a.mu.Unlock()
	alloc.mu.Lock()
	var texts []string
	for text := range alloc.uses {
		texts = append(texts, text)
	}
	alloc.mu.Unlock()
	for _, text := range texts {
		for ctx.Err() == nil && !a.crashed.Load() && alloc.settle(ctx, text) != nil {
		}
	}
}
