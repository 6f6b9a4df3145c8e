// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// errLocked means that a peer has the lock of the labels: one of Cilium's, which are going to
// write without comparing what this package compares.
var errLocked = errors.New("a peer has the lock")

// errJunk means that what stands under the labels' references is of no use: not numbers, not of this
// cluster, or standing for other labels. Allocators that see it take the lock and look past it.
var errJunk = errors.New("references say no number that can be had")

// obtain gets the number of a label string from the store, and puts the reference. Whoever calls it
// has the turn of the set.
//
// One attempt is one transaction, and in nearly all cases the first does it. The others follow what
// the failed one saw: a reference (join its number), a lock (queue for it), a number that is taken
// (pick another).
func (a *Allocator) obtain(ctx context.Context, text string, old ID) (ID, error) {
	excluded, rests := map[ID]bool{}, map[ID]int64{}
	noLock := []clientv3.Cmp{nothingUnder(schema.IdentityLockPath(text) + "/")}
	for attempt := 0; ; attempt++ {
		lease, generation, err := a.session.Lease(ctx)
		if err != nil {
			return Unknown, err
		}
		t := trial{Allocator: a, text: text, lease: lease, guard: noLock, old: old, excluded: excluded, rests: rests}
		id, err := t.run(ctx)
		if errors.Is(err, errLocked) || errors.Is(err, errJunk) {
			t.junk = errors.Is(err, errJunk)
			id, err = a.obtainLocked(ctx, t)
		}
		var exhausted *ExhaustedError
		switch {
		case err == nil && id != Unknown:
			return id, nil
		case err == nil: // somebody was faster
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			a.session.Lost(generation)
		case errors.Is(err, ErrHolding):
			return Unknown, err
		case errors.As(err, &exhausted):
			a.count(func(s *Stats) { s.Exhausted++ })
			return Unknown, err
		case ctx.Err() != nil:
			return Unknown, fmt.Errorf("%w (%w)", ctx.Err(), err)
		default:
			a.failed(err)
		}
		if attempt > 2 && !pause(ctx, min(attempt-2, 8)) {
			if err != nil {
				return Unknown, fmt.Errorf("%w (%w)", ctx.Err(), err)
			}
			return Unknown, ctx.Err()
		}
	}
}

// pause waits for about 20 ms doubled n times; false means that ctx ended.
func pause(ctx context.Context, n int) bool {
	d := 20 * time.Millisecond << n
	timer := time.NewTimer(d/2 + rand.N(d/2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// failed notes the reason of a step that is going to be tried again.
func (a *Allocator) failed(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stats.LastError = err
}

// count changes the counters.
func (a *Allocator) count(f func(*Stats)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(&a.stats)
}

// trial is one attempt to get a number.
type trial struct {
	*Allocator
	text     string
	lease    clientv3.LeaseID
	guard    []clientv3.Cmp // what lets us make a number: no lock stands, or it is ours
	old      ID             // wanted if the set has no number; Unknown: any
	excluded map[ID]bool    // numbers that the store refused in earlier attempts
	rests    map[ID]int64   // revisions of the rows of numbers that rest, and had these labels
	junk     bool           // references that are there are of no use
}

// run returns Unknown without an error if the attempt must be made again.
func (t trial) run(ctx context.Context) (ID, error) {
	if id := t.known.of(t.text); id != Unknown && t.known.inRange(id) {
		return t.reuse(ctx, id)
	}
	return t.create(ctx)
}

// create makes a number for a set that has none.
func (t trial) create(ctx context.Context) (ID, error) {
	if t.old == Unknown {
		t.old = t.known.formerly(t.text)
	}
	id := t.old
	if id == Unknown || t.excluded[id] || !t.known.inRange(id) {
		if held, _ := t.holding(); held {
			return Unknown, ErrHolding
		}
		if len(t.excluded) == 8 { // much is at rest: better to know all of it
			if err := t.excludeResting(ctx); err != nil {
				return Unknown, err
			}
		}
		var err error
		if id, err = t.known.pick(t.excluded); err != nil {
			return Unknown, err
		}
	} else if t.usedByOthers(id, t.text) || !t.known.reserve(id) {
		t.excluded[id] = true
		return t.create(ctx)
	}
	defer t.known.unreserve(id)
	master := schema.IdentityMasterKey(uint32(id))
	refs := schema.IdentityReferencesPrefix(t.text)
	cmps := append([]clientv3.Cmp{absent(master)}, t.guard...)
	if !t.junk {
		cmps = append(cmps, nothingUnder(refs))
	}
	// A number that the set had before may be had back while it rests, if it rests from these labels:
	// the rest is for those who still know it by them. The row is the operator's to remove.
	if rev := t.rests[id]; rev != 0 {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(restingKey(id)), "=", rev))
	} else {
		cmps = append(cmps, absent(restingKey(id)))
	}
	do := []clientv3.Op{clientv3.OpPut(master, t.text), t.putReference(id)}
	// No Else: it would make the transaction half as large again, every time, for what is rare.
	made, err := t.batch.txn(ctx, t.text, cmps, do, nil)
	if err != nil {
		return Unknown, err
	}
	if made.Succeeded {
		t.count(func(s *Stats) { s.Created++ })
		return id, nil
	}
	resp, err := t.client.Txn(ctx).Then(t.look(id)...).Commit()
	if err != nil {
		return Unknown, err
	}
	saw := t.saw(resp.Responses)
	switch {
	case saw.master != nil:
		t.excluded[id] = true
		if id == t.old && string(saw.master) != t.text {
			t.count(func(s *Stats) { s.Taken++ })
		}
	case saw.resting != 0 && id == t.old && saw.rested == t.text && t.rests[id] != saw.resting:
		t.rests[id] = saw.resting
	case saw.resting != 0 && t.rests[id] != saw.resting:
		t.excluded[id] = true
	case saw.resting == 0:
		delete(t.rests, id) // the rest has just ended
	}
	return t.next(ctx, saw)
}

// usedByOthers tells whether other labels than these have a number on this node.
func (a *Allocator) usedByOthers(id ID, text string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	other, ok := a.byID[id]
	return ok && other != text
}

// reuse takes the number that the mirror knows for the set: either all references say the same, or
// there is none and nobody is about to make one.
func (t trial) reuse(ctx context.Context, id ID) (ID, error) {
	master := schema.IdentityMasterKey(uint32(id))
	refs := schema.IdentityReferencesPrefix(t.text)
	same := clientv3.Compare(clientv3.Value(master), "=", t.text)
	agreed := clientv3.Compare(clientv3.Value(refs).WithPrefix(), "=", string(schema.EncodeIdentityReference(uint32(id))))
	alone := append([]clientv3.Cmp{same}, t.guard...)
	if !t.junk {
		alone = append(alone, nothingUnder(refs))
	}
	resp, err := t.batch.txn(ctx, t.text,
		[]clientv3.Cmp{same, agreed},
		[]clientv3.Op{t.putReference(id)},
		[]clientv3.Op{clientv3.OpTxn(
			alone,
			[]clientv3.Op{t.putReference(id)},
			t.look(id),
		)},
	)
	if err != nil {
		return Unknown, err
	}
	if !resp.Succeeded {
		inner := resp.Responses[0].GetResponseTxn()
		if !inner.Succeeded {
			saw := t.saw(inner.Responses)
			if len(saw.refs) == 0 && !saw.locked && (t.junk || !saw.junk) && (saw.master == nil || string(saw.master) != t.text) {
				// The mirror is behind, or on hold: what it shows is gone from the store. The set gets
				// its number back unless another has it.
				if saw.master != nil {
					t.excluded[id] = true
				} else if !t.excluded[id] {
					t.old = id
				}
				return t.create(ctx)
			}
			return t.next(ctx, saw)
		}
	}
	t.count(func(s *Stats) { s.Joined++ })
	return id, nil
}

// next goes on from what a failed transaction saw.
func (t trial) next(ctx context.Context, saw sight) (ID, error) {
	if len(saw.refs) > 0 {
		return t.join(ctx, saw.refs)
	}
	if saw.locked {
		return Unknown, errLocked
	}
	if saw.junk {
		return Unknown, errJunk
	}
	return Unknown, nil
}

// join takes the number that references say. Of several the one whose master key is oldest counts;
// one without a master key is made whole again, since its users are about to do that too.
func (t trial) join(ctx context.Context, refs []reference) (ID, error) {
	best, err := t.oldest(ctx, refs)
	if err != nil {
		return Unknown, err
	}
	if best.id == Unknown {
		if t.junk {
			return t.create(ctx)
		}
		return Unknown, errJunk
	}
	master := schema.IdentityMasterKey(uint32(best.id))
	stands := clientv3.Compare(clientv3.Value(best.key), "=", string(schema.EncodeIdentityReference(uint32(best.id))))
	resp, err := t.client.Txn(ctx).
		If(stands, clientv3.Compare(clientv3.Value(master), "=", t.text)).
		Then(t.putReference(best.id)).
		Else(clientv3.OpTxn(
			[]clientv3.Cmp{stands, absent(master)},
			[]clientv3.Op{clientv3.OpPut(master, t.text), t.putReference(best.id)},
			nil,
		)).Commit()
	if err != nil {
		t.doubt(t.text)
		return Unknown, err
	}
	if !resp.Succeeded {
		if !resp.Responses[0].GetResponseTxn().Succeeded {
			return Unknown, nil
		}
		t.count(func(s *Stats) { s.Recreated++ })
	}
	t.count(func(s *Stats) { s.Joined++ })
	return best.id, nil
}

// oldest returns a reference to the number that counts, or none if no reference is any good: all
// say numbers that are out of range or stand for other labels.
func (t trial) oldest(ctx context.Context, refs []reference) (reference, error) {
	byID := map[ID]reference{}
	for _, r := range refs {
		byID[r.id] = r
	}
	var best reference
	var since int64
	for id, r := range byID {
		kv, ok, err := t.client.Get(ctx, schema.IdentityMasterKey(uint32(id)))
		if err != nil {
			return reference{}, err
		}
		if ok && string(kv.Value) != t.text {
			continue
		}
		created := int64(1<<63 - 1) // none: only if no other has one
		if ok {
			created = kv.CreateRevision
		}
		if best.id == Unknown || created < since || created == since && id < best.id {
			best, since = r, created
		}
	}
	return best, nil
}

func (t trial) putReference(id ID) clientv3.Op {
	return clientv3.OpPut(t.referenceKey(t.text), string(schema.EncodeIdentityReference(uint32(id))), clientv3.WithLease(t.lease))
}

func (a *Allocator) referenceKey(text string) string {
	return schema.IdentityReferenceKey(text, a.cfg.Node)
}

// excludeResting adds all numbers at rest to those excluded.
func (t trial) excludeResting(ctx context.Context) error {
	l, err := t.client.List(ctx, schema.RestingPrefix, kvstore.ListOptions{KeysOnly: true})
	if err != nil {
		return err
	}
	for _, kv := range l.KVs {
		if k, err := t.restings.ParseKey(kv.Key[len(t.restings.Prefix):]); err == nil {
			t.excluded[ID(k.ID)] = true
		}
	}
	return nil
}

// absent compares that a key does not exist.
func absent(key string) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
}

// nothingUnder compares that no key with a prefix exists: of an empty range etcd compares a key
// with revision 0, of any other all its keys.
func nothingUnder(prefix string) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(prefix).WithPrefix(), "=", 0)
}

func restingKey(id ID) string {
	return schema.RestingPrefix + schema.IdentityKey{ID: uint32(id)}.String()
}
