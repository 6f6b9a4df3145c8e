// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore/schema"
)

var (
	// errReplaced means that a store that was lost has another in its place, and that is served now.
	errReplaced = errors.New("the store was replaced")
	// errSettled means that nothing is held any more of a store that was lost.
	errSettled = errors.New("nothing is held any more")
)

// hold serves the last view of a store that was lost, as it was, until its successor says that it is one:
// by a new epoch. Then the new store is served, and with it what it lacks of the old, which its owners
// let go one by one (see held). A store without an epoch has nobody who could say so: its last view is
// served for a limit, and then what is there.
func (c *Cache) hold(ctx context.Context) error {
	gen := c.gen.Load()
	c.mu.Lock()
	first := c.status.Holding.IsZero()
	if first {
		c.status.Holding, c.status.Held, c.waited, c.over = time.Now(), Held{}, 0, time.Time{}
	}
	c.mu.Unlock()
	gen.Store.giveUp()
	nodes := gen.Store.count(schema.NodesPrefix + c.cfg.Cluster + "/")
	if first {
		c.log.Warn("the store is not the one that was known; its last view is served until it is known what became of it",
			"revision", gen.Store.Revision(), "nodes", nodes)
		c.keep(gen, c.Status().Holding)
	}
	successor := false
	for at := time.Now(); ; {
		epoch, _, err := c.readEpoch(ctx)
		if err != nil {
			return fmt.Errorf("hold: %w", err)
		}
		successor = epoch != "" && epoch != gen.Epoch
		nobody := nodes == 0 || gen.Epoch == "" && c.waited >= c.cfg.HoldLimit
		if !successor && !nobody {
			c.over = time.Time{}
		} else if c.over.IsZero() {
			c.over = time.Now()
		}
		if !c.over.IsZero() && time.Since(c.over) >= c.cfg.HoldLonger {
			break
		}
		c.heard(time.Now())
		c.keepAgain(gen, c.Status().Holding)
		if !pause(ctx, c.cfg.Probe) {
			return ctx.Err()
		}
		c.waited, at = c.waited+time.Since(at), time.Now()
	}
	if nodes == 0 || !successor {
		return c.replace(ctx, nil)
	}
	last := heldOf(gen.Store, c.cfg.Cluster)
	last.since = c.Status().Holding
	return c.replace(ctx, last)
}

// replace serves the store as it is now, and with it what is held of the one before.
func (c *Cache) replace(ctx context.Context, last *held) error {
	next, err := c.begin(ctx, last)
	if err != nil {
		return err
	}
	next.from = next.Store.base // what happened before is not the history of anybody's clients
	if h := next.held; h != nil {
		c.log.Info("another store is served, with what it lacks of the one before",
			"revision", next.Store.Revision(), "held", len(h.rows), "nodes", len(h.nodes))
	} else {
		c.log.Info("the hold is over", "revision", next.Store.Revision())
	}
	c.publishUnread(next)
	c.holds(next.held)
	c.keep(next, time.Time{})
	return errReplaced
}

// holds takes note of what is held; nil: nothing.
func (c *Cache) holds(h *held) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Held = Held{}
	if h != nil {
		c.status.Held = Held{Rows: len(h.rows), Silent: h.silent(), Since: h.since}
	}
}

// listenOwners begins to follow what is said of held rows: by their owners, and by a person. What may not
// be read is done without.
func (c *Cache) listenOwners(ctx context.Context, st *stream, h *held) error {
	for _, w := range []struct {
		id   int64
		key  string
		end  string
		take func(*mvccpb.KeyValue)
	}{
		{watchOwners, schema.OwnersPrefix, clientv3.GetPrefixRangeEnd(schema.OwnersPrefix), h.says},
		{watchDecision, schema.DecisionKey, "", h.decided},
	} {
		var opts []clientv3.OpOption
		if w.end != "" {
			opts = append(opts, clientv3.WithRange(w.end))
		}
		resp, err := c.get(ctx, w.key, opts...)
		if errors.Is(err, rpctypes.ErrPermissionDenied) {
			continue
		}
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			w.take(kv)
		}
		// Not from behind what was read: the etcd tells no progress as long as a watch is of the future.
		err = st.create(&pb.WatchCreateRequest{
			WatchId: w.id, Key: []byte(w.key), RangeEnd: []byte(w.end), StartRevision: resp.Header.Revision,
		})
		if err != nil {
			return err
		}
	}
	c.holds(h)
	return nil
}

// letGo deletes what is due of what is held, up to a revision up to which all events are applied. Each
// deletion gets a revision of the etcd at which nothing else happened to what is cached: the one from
// which on it is true, so that replicas do the same, or the next that is free. Where there is none it
// waits for one.
func (w watched) letGo(through int64, now time.Time) error {
	h, s := w.gen.held, w.gen.Store
	if h == nil {
		return nil
	}
	for s.Revision() < through {
		at, keys := h.next(through, now)
		if len(keys) == 0 {
			return nil
		}
		at = max(at, s.Revision()+1)
		if err := s.Apply(at, w.gone(at, keys)); err != nil {
			return err
		}
	}
	return nil
}

// withHeld returns what is to be applied at a revision: its events, and what is due of what is held where
// no revision before it was free. A revision that deletes is left alone: who follows the store would take
// it for one that deletes what several own, which nobody does who means it.
func (w watched) withHeld(revision int64, evs []*mvccpb.Event, now time.Time) ([]*mvccpb.Event, error) {
	h := w.gen.held
	if h == nil {
		return evs, nil
	}
	for _, ev := range evs {
		h.there(ev.Kv.Key)
	}
	if err := w.letGo(revision-1, now); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(evs, func(ev *mvccpb.Event) bool { return ev.Type == mvccpb.Event_DELETE }) {
		return evs, nil
	}
	_, keys := h.next(revision, now)
	return append(evs, w.gone(revision, keys)...), nil
}

// gone are the deletions at a revision of rows that were held.
func (w watched) gone(revision int64, keys []string) []*mvccpb.Event {
	evs := make([]*mvccpb.Event, len(keys))
	for i, key := range keys {
		evs[i] = &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: revision}}
	}
	if h := w.gen.held; len(keys) > 0 {
		h.went = revision
		w.c.log.Info("held rows let go", "rows", len(keys), "left", len(h.rows), "silent", h.silent())
		w.c.holds(h)
	}
	return evs
}

// watchHeld lets time pass for what is held. The error is errSettled when nothing is for long enough that
// everybody has seen the last of it go.
func (c *Cache) watchHeld(gen *Generation, passed time.Duration) error {
	h := gen.held
	if h == nil {
		return nil
	}
	now := time.Now()
	h.wait(passed, c.cfg.HoldLimit, now)
	c.holds(h)
	c.keepAgain(gen, time.Time{})
	if !h.empty.IsZero() && now.Sub(h.empty) >= c.cfg.HoldLinger+c.cfg.HoldLonger {
		return errSettled
	}
	return nil
}
