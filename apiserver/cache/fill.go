// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
)

// sliceRevisions is the least that is worth a watch of its own: the etcd tells so many revisions at
// once.
const sliceRevisions = 1000

// fillTries is how often the history is asked for while the etcd answers; fillPause lies between.
const (
	fillTries = 20
	fillPause = time.Second
)

// errTooMuch means that the history is larger than what is kept of it.
var errTooMuch = errors.New("the history is larger than its budget")

// fillFrom is the revision that the history is to be fetched from; one behind what a generation began
// with means that none is.
func (c *Cache) fillFrom(gen *Generation) int64 {
	switch {
	case c.cfg.FillSlices < 0:
		return gen.Store.base + 1
	case gen.from > 0:
		return gen.from
	}
	return max(1, gen.Store.base-int64(c.cfg.History.Revisions)+1)
}

// publishUnread makes a generation the present one whose history is still to be fetched: at the least
// what happened at the revision that it begins with, for clients that list at a revision and watch from
// there, and not from behind it, must not be told for ever to list again. Who resumes in what is to be
// fetched waits for it from the first moment on.
func (c *Cache) publishUnread(gen *Generation) {
	c.unread = true
	gen.Store.expectFill(c.fillFrom(gen))
	c.publish(gen)
}

// fillBack fetches the history from before the first list, as far back as it is kept and the etcd
// has it. Clients that resume in it wait meanwhile. What may pass is tried again, or left to the next
// session when this one ends; whatever else goes wrong costs the history, and is logged.
func (c *Cache) fillBack(ctx context.Context, gen *Generation) error {
	from, through := c.fillFrom(gen), gen.Store.base
	if from > through {
		c.unread = false
		return nil
	}
	gen.Store.expectFill(from)
	for try := 1; ; {
		pasts, err := c.past(ctx, gen, from, through)
		var compacted *CompactedError
		switch {
		case err == nil:
			err = gen.Store.backfill(from, pasts)
		case errors.As(err, &compacted) && compacted.Revision > from && compacted.Revision <= through:
			from = compacted.Revision
			gen.Store.expectFill(from)
			continue
		case errors.Is(err, errTooMuch) && from < through:
			from += (through-from)/2 + 1
			gen.Store.expectFill(from)
			continue
		case ctx.Err() != nil:
			return ctx.Err() // those who wait for it go on waiting
		case passes(err) && try < fillTries:
			c.log.Info("the store's history is asked for again", "error", err)
			if try++; !pause(ctx, c.between) {
				return ctx.Err()
			}
			continue
		}
		gen.Store.giveUp()
		c.unread = false
		if err != nil {
			c.log.Warn("the store's history is not known", "error", err)
		}
		return nil
	}
}

// passes reports whether an answer to the question for history may be another one next time.
func passes(err error) bool {
	return !errors.As(err, new(*CompactedError)) && !errors.Is(err, errTooMuch) && !errors.Is(err, errChanged) &&
		!errors.Is(err, rpctypes.ErrPermissionDenied)
}

// fetch reads the history of some revisions by several watches at once, each of a slice of them.
func (c *Cache) fetch(ctx context.Context, gen *Generation, from, through int64) ([]past, error) {
	n := min(int64(c.cfg.FillSlices), (through-from)/sliceRevisions+1)
	slices := make([][]past, n)
	var size atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for i := range n {
		first, last := from+(through-from+1)*i/n, from+(through-from+1)*(i+1)/n-1
		g.Go(func() (err error) {
			slices[i], err = c.fetchSlice(ctx, gen, first, last, &size)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var all []past
	for _, s := range slices {
		all = append(all, s...)
	}
	return all, nil
}

// fetchSlice reads the history of first to last by one watch.
func (c *Cache) fetchSlice(ctx context.Context, gen *Generation, first, last int64, size *atomic.Int64) (pasts []past, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st, err := openStream(ctx, c.client.Etcd())
	if err != nil {
		return nil, err
	}
	err = st.create(&pb.WatchCreateRequest{
		WatchId: watchKeys, Key: []byte(c.cfg.Prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(c.cfg.Prefix)),
		StartRevision: first, PrevKv: true,
	})
	if err != nil {
		return nil, err
	}
	// A slice without any change ends only by word of progress, which comes when it was asked for
	// behind everything else.
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for pause(gctx, 20*time.Millisecond) {
			if err := st.askProgress(); err != nil {
				return nil // the receiver says why
			}
		}
		return nil
	})
	defer func() { _ = g.Wait() }()
	defer cancel()
	for {
		resp, err := st.recv()
		if err != nil {
			return nil, fmt.Errorf("history from %d: %w", first, err)
		}
		if resp.Header.ClusterId != gen.upstream {
			return nil, errChanged
		}
		for _, ev := range resp.Events {
			if ev.Kv.ModRevision > last {
				return pasts, nil
			}
			if size.Add(sizeOf(ev.Kv)) > c.cfg.History.Bytes {
				return nil, errTooMuch
			}
			if n := len(pasts); n == 0 || pasts[n-1].rev != ev.Kv.ModRevision {
				pasts = append(pasts, past{rev: ev.Kv.ModRevision})
			}
			p := &pasts[len(pasts)-1]
			p.events = append(p.events, ev)
		}
		if len(resp.Events) == 0 && !resp.Created && resp.Header.Revision >= last {
			return pasts, nil
		}
	}
}
