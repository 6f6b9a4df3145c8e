// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// settleParallel is how many sets are written or removed at the same time: one batch gathers while
// another is under way.
const settleParallel = 2 * batchOps

// settleLocked notes that the store must be made to agree with a set's use.
func (a *Allocator) settleLocked(text string) {
	a.pending[text] = struct{}{}
	a.wakeLocked()
}

func (a *Allocator) wakeLocked() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// settleLate notes a set whose allocation ended in the store after its caller had given up: if nobody
// else wants it, there may be a reference too many.
func (a *Allocator) settleLate(text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.useLocked(text)
	a.settleLocked(text)
}

// unseenEvery is how often a number is looked at that stands in the store and not in the mirror. A key
// that vanishes before the mirror has shown it is told by nobody.
const unseenEvery = time.Second

// noteUnseen notes whether the mirror shows a set's number.
func (a *Allocator) noteUnseen(text string, id ID) {
	seen := !a.known.hasSynced() || a.known.shows(text, id)
	a.mu.Lock()
	defer a.mu.Unlock()
	if seen {
		delete(a.unseen, text)
	} else {
		a.unseen[text] = struct{}{}
	}
}

// settleUnseen is settleLocked for all sets whose number the mirror did not show.
func (a *Allocator) settleUnseen() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for text := range a.unseen {
		a.settleLocked(text)
	}
	clear(a.unseen)
}

// doubtFor is how long a request that seemed lost is expected to arrive yet. etcd gives up what it
// could not do within 7 s; the rest is for what waits in a network or a stopped process.
const doubtFor = time.Minute

// doubt notes a set to be looked at at each interval for a while: a request that seemed lost can still
// arrive, and leave a reference that nobody uses.
func (a *Allocator) doubt(text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.doubts[text] = time.Now()
}

// settleDoubts is settleLocked for all sets in doubt, of which the old ones are in doubt no more.
func (a *Allocator) settleDoubts(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for text, since := range a.doubts {
		a.useLocked(text)
		a.settleLocked(text)
		if now.Sub(since) > doubtFor {
			delete(a.doubts, text)
		}
	}
}

// settleHeld is settleLocked for all sets, and for those that only the store takes for used.
func (a *Allocator) settleHeld() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for text := range a.uses {
		a.settleLocked(text)
	}
	a.astray = true
	a.wakeLocked()
}

// followKnown notes sets whose master key vanished or was overwritten while they are used, or got a
// rival.
func (a *Allocator) followKnown(ctx context.Context) error {
	return a.known.follow(ctx, func(c state.Change[schema.IdentityKey, string]) {
		a.mu.Lock()
		defer a.mu.Unlock()
		id := ID(c.Key.ID)
		if u := a.uses[c.Value]; u != nil && u.id != Unknown && c.Deleted == (u.id == id) {
			a.settleLocked(c.Value)
		}
		if text, ok := a.byID[id]; ok && text != c.Value {
			a.settleLocked(text)
		}
	})
}

// followLease notes all sets when the lease is another than before: the references went with it.
func (a *Allocator) followLease(ctx context.Context) error {
	for seen := uint64(0); ; {
		lease, changed := a.session.Current()
		if lease.Generation != 0 && lease.Generation != seen {
			seen = lease.Generation
			a.settleHeld()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// settleAll settles what is noted, and every SyncInterval everything.
func (a *Allocator) settleAll(ctx context.Context) error {
	tick := time.NewTicker(a.cfg.SyncInterval)
	defer tick.Stop()
	unseen := time.NewTicker(unseenEvery)
	defer unseen.Stop()
	for failures := 0; ; {
		if a.settlePending(ctx) {
			failures = 0
		} else if failures++; !pause(ctx, min(failures, 8)) {
			return ctx.Err()
		} else {
			continue
		}
		select {
		case <-a.wake:
		case now := <-tick.C:
			a.settleHeld()
			a.settleDoubts(now)
		case <-unseen.C:
			a.settleUnseen()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// settlePending settles what is noted now, and returns false if something has to be tried again.
func (a *Allocator) settlePending(ctx context.Context) bool {
	ok := true
	if err := a.noteAstray(ctx); err != nil {
		a.failed(err)
		ok = false
	}
	a.mu.Lock()
	todo := a.pending
	a.pending = map[string]struct{}{}
	a.mu.Unlock()
	var g errgroup.Group
	g.SetLimit(settleParallel)
	var mu sync.Mutex
	for text := range todo {
		g.Go(func() error {
			if err := a.settle(ctx, text); err != nil {
				a.failed(err)
				a.mu.Lock()
				a.pending[text] = struct{}{}
				if _, ok := a.doubts[text]; ok {
					a.doubts[text] = time.Now() // a store that does not answer may do it when it is back
				}
				a.mu.Unlock()
				mu.Lock()
				ok = false
				mu.Unlock()
			}
			return nil
		})
	}
	_ = g.Wait() // no error is returned to it
	return ok
}

// settle makes the store agree with the use of one set.
func (a *Allocator) settle(ctx context.Context, text string) error {
	a.mu.Lock()
	// One that is not used any more was noted for what a request may have left behind, perhaps while the
	// last use of it ended.
	u := a.useLocked(text)
	// While a set is allocated, which can take as long as a peer's lock, there is nothing to settle:
	// the allocation writes what is needed, or notes the set again when it fails.
	idle := u.users > 0 && u.id == Unknown
	a.mu.Unlock()
	if idle {
		return nil
	}
	select {
	case <-u.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { u.turn <- struct{}{} }()
	a.mu.Lock()
	if a.uses[text] != u { // it ended meanwhile, and whoever uses the set now has another turn
		a.settleLocked(text)
		a.mu.Unlock()
		return nil
	}
	users, id := u.users, u.id
	if users == 0 {
		// The number is not ours from here on. Who comes while the store works asks anew.
		a.setIDLocked(u, Unknown)
	}
	a.mu.Unlock()
	switch {
	case users == 0:
		return a.forget(ctx, u)
	case id == Unknown:
		return nil // somebody waits for the turn, to allocate it
	}
	if err := a.keep(ctx, u, id); err != nil {
		return err
	}
	a.noteUnseen(text, id)
	return nil
}

// forget removes the reference of a set without users.
func (a *Allocator) forget(ctx context.Context, u *use) error {
	if _, err := a.client.Delete(ctx, a.referenceKey(u.text)); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if u.users == 0 {
		delete(a.uses, u.text)
	}
	return nil
}

// errBusy means that another step of this node works on the same number.
var errBusy = errors.New("the number is being written")

// keep makes sure that master key and reference of a set in use stand in the store. The number is
// the old one wherever nothing else stands there: after a store was wiped this is what fills it again.
func (a *Allocator) keep(ctx context.Context, u *use, id ID) error {
	lease, generation, err := a.session.Lease(ctx)
	if err != nil {
		return err
	}
	if !a.known.reserve(id) { // two of one batch must not write one key
		return errBusy
	}
	defer a.known.unreserve(id)
	t := trial{Allocator: a, text: u.text, lease: lease}
	master, ref := schema.IdentityMasterKey(uint32(id)), a.referenceKey(u.text)
	same := clientv3.Compare(clientv3.Value(master), "=", u.text)
	all := clientv3.OpGet(schema.IdentityReferencesPrefix(u.text), clientv3.WithPrefix())
	resp, err := a.batch.txn(ctx, u.text,
		[]clientv3.Cmp{
			same,
			clientv3.Compare(clientv3.Value(ref), "=", string(schema.EncodeIdentityReference(uint32(id)))),
			clientv3.Compare(clientv3.LeaseValue(ref), "=", lease),
		},
		[]clientv3.Op{all},
		[]clientv3.Op{clientv3.OpTxn(
			[]clientv3.Cmp{same},
			[]clientv3.Op{t.putReference(id), all},
			[]clientv3.Op{clientv3.OpTxn(
				[]clientv3.Cmp{absent(master)},
				[]clientv3.Op{clientv3.OpPut(master, u.text), t.putReference(id), all},
				[]clientv3.Op{clientv3.OpGet(master)},
			)},
		)},
	)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		a.session.Lost(generation)
	}
	if err != nil {
		return err
	}
	answers := resp.Responses
	if !resp.Succeeded {
		second := answers[0].GetResponseTxn()
		answers = second.Responses
		if !second.Succeeded {
			third := answers[0].GetResponseTxn()
			if answers = third.Responses; !third.Succeeded {
				a.count(func(s *Stats) { s.Taken++ })
				return a.renumber(ctx, u, id, "the number stands for other labels")
			}
			a.count(func(s *Stats) { s.Recreated++ })
			a.log.Info("identity master key had vanished and was written again", "identity", uint32(id), "labels", u.text)
		}
	}
	// The labels may have another number too: two stores were joined, or a lock was lost.
	refs := t.references(answers[len(answers)-1].GetResponseRange())
	for _, r := range refs {
		if r.id == id {
			continue
		}
		best, err := t.oldest(ctx, refs)
		if err != nil {
			return err
		}
		if best.id != id && best.id != Unknown {
			a.count(func(s *Stats) { s.Rivals++ })
			return a.renumber(ctx, u, id, "the labels have an older number")
		}
		return nil
	}
	return nil
}

// renumber gives a set in use another number: the store wins. Users follow the table of held ones.
func (a *Allocator) renumber(ctx context.Context, u *use, id ID, why string) error {
	// The old reference would only be joined again.
	if _, err := a.client.Delete(ctx, a.referenceKey(u.text)); err != nil {
		return err
	}
	next, err := a.obtain(ctx, u.text, Unknown)
	if err != nil {
		return err
	}
	if next == id {
		return nil
	}
	a.setID(u, next)
	a.count(func(s *Stats) { s.Renumbered++ })
	a.log.Warn("identity has another number", "labels", u.text, "was", uint32(id), "identity", uint32(next), "reason", why)
	return nil
}
