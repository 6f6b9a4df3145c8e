// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

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
