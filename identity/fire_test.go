// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
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

// gate lets a mirror fall behind.
type gate struct {
	mu   sync.Mutex
	open chan struct{} // closed: changes pass
}

func newGate() *gate {
	g := &gate{open: make(chan struct{})}
	close(g.open)
	return g
}

// shut keeps changes until open is called.
func (g *gate) shut() (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := make(chan struct{})
	g.open = c
	return func() { close(c) }
}

func (g *gate) wait(ctx context.Context) {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	select {
	case <-open:
	case <-ctx.Done():
	}
}

// fire is one schedule.
type fire struct {
	t       *testing.T
	server  *kvstoretest.Server
	clean   *kvstore.Client // without faults
	history *history
	sets    []Labels
	actors  []*actor
	done    atomic.Int64 // operations
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

// feed passes changes of one table on to another, as long as the gate is open.
func feed(ctx context.Context, g *gate, from, to *state.Table[schema.IdentityKey, string]) error {
	cursor := from.Cursor()
	defer cursor.Close()
	for {
		g.wait(ctx)
		synced := from.Synced()
		for changes := cursor.Next(10); len(changes) > 0; changes = cursor.Next(10) {
			for _, c := range changes {
				if c.Deleted {
					to.Delete("etcd", 0, c.Key)
				} else {
					row, _ := from.Get(c.Key)
					to.Put("etcd", row.Origin, c.Key, c.Value)
				}
			}
			g.wait(ctx)
		}
		if synced {
			to.MarkSynced("etcd")
		}
		if err := cursor.Wait(ctx); err != nil {
			return ctx.Err()
		}
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

// collect makes two rounds of the collector, between which every node that is not frozen has had
// the time it would have.
func (f *fire) collect(gc *GC, except *actor) {
	for _, a := range f.actors {
		if a != except {
			a.chaos.deliver()
		}
	}
	for range 2 {
		for _, a := range f.actors {
			if a == except {
				continue
			}
			// It may wait for a lock of the one that is frozen, whose lease goes on here.
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			a.settled(ctx)
			waits := ctx.Err() != nil
			cancel()
			if waits || a.crashed.Load() || a.restarting.Load() {
				return // it will be back long before the next round
			}
		}
		round(f.t, gc)
	}
}

// run lets the actors act under faults, then lets everything come to rest and judges.
func (f *fire) run(seed uint64, steps int) {
	rng := rand.New(rand.NewPCG(seed, 0))
	for i, name := range []string{"172.16.0.1", "172.16.0.2", "172.16.0.3", "172.16.0.9"} {
		source := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, uint64(i)*2+n)) }
		a := &actor{name: name, fire: f, chaos: &chaos{rng: source(100)}, rng: source(101), mirror: newGate(), held: map[string]*tenure{}}
		if i == 3 {
			first, _ := Range(3, 255)
			a.peer = &peer{address: name, first: first, last: first + 99, rng: source(102), giving: f.history.give}
		}
		a.start()
		f.actors = append(f.actors, a)
		defer func() { a.stop() }()
	}
	gc := newGC(f.t, f.clean, GCConfig{Rest: time.Hour})
	var acting sync.WaitGroup
	for _, a := range f.actors {
		acting.Go(func() {
			for range steps {
				a.step()
				f.done.Add(1)
			}
		})
	}
	finished := make(chan struct{})
	go func() { acting.Wait(); close(finished) }()
	f.disturb(rng, gc, int64(steps*len(f.actors)), finished)
	f.rest(gc)
}

// disturb freezes nodes, takes their leases, delays mirrors and collects, until all have finished.
func (f *fire) disturb(rng *rand.Rand, gc *GC, total int64, finished <-chan struct{}) {
	for next := int64(0); ; {
		next += 10 + rng.Int64N(20)
		if next >= total {
			<-finished
			return
		}
		for reached := false; !reached; {
			select {
			case <-finished:
				return
			case <-time.After(time.Millisecond):
				reached = f.done.Load() >= next
			}
		}
		victim := f.actors[rng.IntN(len(f.actors))]
		switch rng.IntN(3) {
		case 0:
			f.collect(gc, nil)
		case 1: // longer than every lease
			thaw := victim.chaos.freeze()
			victim.mu.Lock()
			victim.frozen = true
			f.history.lapse(victim.name)
			lease, _ := victim.lease()
			victim.mu.Unlock()
			if lease.ID != 0 {
				if _, err := f.clean.Etcd().Revoke(timeout(f.t), lease.ID); err != nil {
					f.t.Log("revoke:", err) // it took another one just now
				}
			}
			f.collect(gc, victim)
			thaw()
			victim.settled(timeout(f.t))
			victim.mu.Lock()
			victim.frozen = false
			victim.mu.Unlock()
		case 2:
			open := victim.mirror.shut()
			f.collect(gc, nil)
			open()
		}
	}
}

// rest ends all faults, waits until the store says what is held and judges the history.
func (f *fire) rest(gc *GC) {
	for _, a := range f.actors {
		a.chaos.setCalm(true)
		if a.crashed.Load() {
			a.restart()
		}
		a.chaos.deliver()
	}
	for _, a := range f.actors {
		for _, lease := range a.leases {
			_, _ = f.clean.Etcd().Revoke(timeout(f.t), lease) // it would expire
		}
	}
	f.republishPeer()
	var want, got []string
	equal := func() bool {
		// As at every interval: what arrived late may be told to its allocator later still.
		for _, a := range f.actors {
			if a.alloc != nil {
				a.alloc.settleDoubts()
			}
		}
		want, got = f.held(), f.stored()
		return slices.Equal(want, got)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for !equal() {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			f.t.Fatalf("the store does not say what is held:\nheld   %q\nstored %q", want, got)
		}
	}
	f.collect(gc, nil)
	f.collect(gc, nil)
	if !equal() {
		f.t.Errorf("after the collector:\nheld   %q\nstored %q", want, got)
	}
	for _, b := range f.history.judge() {
		f.t.Error(b)
	}
}

// republishPeer writes what the peer's lease has lost, as its own periodic sync would.
func (f *fire) republishPeer() {
	for _, a := range f.actors {
		if a.peer == nil {
			continue
		}
		for _, labels := range f.sets {
			if u := a.held[labels.String()]; u != nil {
				if id, err := a.get(labels, u.id, 30*time.Second); err != nil {
					f.t.Error(err)
				} else {
					u.id = id
				}
			}
		}
	}
}

// held returns what the nodes use: "<labels> <number> <node>", and the master key of each.
func (f *fire) held() []string {
	var all []string
	add := func(labels string, id ID, node string) {
		all = append(all, fmt.Sprintf("%s %d %s", labels, uint32(id), node), fmt.Sprintf("%s %d", labels, uint32(id)))
	}
	for _, a := range f.actors {
		for text, u := range a.held {
			id := u.id
			if a.alloc != nil {
				row, _ := a.alloc.Held().Get(text)
				id = row.Value.ID
			}
			add(text, id, a.name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// stored returns what the store says in the words of held. Master keys without a reference are the
// collector's to remove.
func (f *fire) stored() []string {
	var all []string
	masters := map[string]string{}
	for _, kv := range f.list(schema.IdentityIDsPrefix) {
		masters[kv.Key[len(schema.IdentityIDsPrefix):]] = string(kv.Value)
	}
	for _, kv := range f.list(schema.IdentityValuesPrefix) {
		rest := kv.Key[len(schema.IdentityValuesPrefix):]
		i := len(rest) - 1
		for rest[i] != '/' {
			i--
		}
		text, node := rest[:i], rest[i+1:]
		all = append(all, fmt.Sprintf("%s %s %s", text, kv.Value, node))
		if masters[string(kv.Value)] == text {
			all = append(all, fmt.Sprintf("%s %s", text, kv.Value))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (f *fire) list(prefix string) []kvstore.KV {
	l, err := f.clean.List(timeout(f.t), prefix, kvstore.ListOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	return l.KVs
}

// Three allocators and a peer that locks, of which each request may be lost before or after it was
// done, or arrive late; which crash, freeze for longer than their leases, and see late mirrors; while
// the collector runs. WEFT_SEED repeats a schedule, WEFT_SOAK makes it long.
func TestFire_RandomSchedules(t *testing.T) {
	seeds, steps := []uint64{rand.Uint64()}, 150
	if os.Getenv("WEFT_SOAK") != "" {
		steps = 2000
		for range 9 {
			seeds = append(seeds, rand.Uint64())
		}
	}
	if s, err := strconv.ParseUint(os.Getenv("WEFT_SEED"), 10, 64); err == nil {
		seeds = []uint64{s}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Logf("repeat with WEFT_SEED=%d", seed)
			s := kvstoretest.Start(t, kvstoretest.Options{})
			f := &fire{t: t, server: s, clean: s.Client(), history: &history{}}
			for i := range 16 {
				f.sets = append(f.sets, set(fmt.Sprint(i)))
			}
			f.run(seed, steps)
		})
	}
}
