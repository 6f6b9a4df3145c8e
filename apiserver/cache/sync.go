// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// publish puts a generation in force and ends the one before.
func (c *Cache) publish(gen *Generation) {
	old := c.gen.Swap(gen)
	if old == nil {
		close(c.ready)
		return
	}
	if old.Store != gen.Store {
		old.Store.giveUp() // nobody fetches its history any more
	}
	close(old.done)
}

// heard takes note of a message.
func (c *Cache) heard(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Heard = at
}

// back takes note that the etcd is followed.
func (c *Cache) back(ask func() error) {
	c.mu.Lock()
	c.status.Connected, c.status.Away, c.status.LastError = true, time.Time{}, nil
	c.status.Holding = time.Time{}
	c.status.Watches++
	c.ask = ask
	c.mu.Unlock()
	c.log.Info("connected to the store")
}

// away takes note that the etcd is not followed any more.
func (c *Cache) away(err error) {
	c.mu.Lock()
	was := c.status.Connected
	if c.status.Away.IsZero() {
		c.status.Away = time.Now()
	}
	c.status.Connected, c.status.LastError, c.ask = false, err, nil
	c.mu.Unlock()
	if was {
		c.log.Warn("the store is away", "error", err)
	}
}

// Sync waits until the cache has all that the etcd had when Sync was called. An etcd that does not
// say so in time makes it return false: what is known is what there is to answer with. The error is
// that of ctx.
func (c *Cache) Sync(ctx context.Context) (fresh bool, err error) {
	fresh, err = c.sync(ctx)
	if !fresh && err == nil {
		c.mu.Lock()
		c.status.Answered++
		c.mu.Unlock()
	}
	return fresh, err
}

func (c *Cache) sync(ctx context.Context) (bool, error) {
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	gen := c.gen.Load()
	st := c.Status()
	if gen == nil || !st.Holding.IsZero() || !st.Away.IsZero() && time.Since(st.Away) >= c.cfg.Patience {
		return false, ctx.Err()
	}
	known := gen.Store.Revision()
	limited, cancel := context.WithTimeout(ctx, c.cfg.Patience)
	defer cancel()
	header, err := c.agreed(limited)
	if err != nil || header.ClusterId != gen.upstream || header.Revision < known {
		return false, ctx.Err()
	}
	// The etcd answers a question for its progress only if it has told everything, so it is asked
	// again until it does.
	again := time.NewTimer(0)
	defer again.Stop()
	for every := 2 * time.Millisecond; ; {
		rev, changed := gen.Store.Changed()
		if rev >= header.Revision {
			return true, nil
		}
		select {
		case <-changed:
		case <-again.C:
			select {
			case c.questions <- struct{}{}:
			default: // one is about to be asked for somebody else
			}
			every = min(2*every, 100*time.Millisecond)
			again.Reset(every)
		case <-limited.Done():
			return false, ctx.Err()
		}
	}
}

// agreed is how far the etcd is. That it refuses may be a connection that is being made anew, so it is
// asked again for as long as ctx allows.
func (c *Cache) agreed(ctx context.Context) (*pb.ResponseHeader, error) {
	const shortest, longest = 5 * time.Millisecond, 100 * time.Millisecond
	for wait := shortest; ; wait = min(2*wait, longest) {
		header, err := c.reads.wait(ctx)
		if err == nil || !pause(ctx, wait) {
			return header, err
		}
	}
}

// askAll asks the etcd how far it is, once for all who wait for it at the same time.
func (c *Cache) askAll(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.questions:
		}
		if ask := c.asking(); ask != nil {
			_ = ask() // its error ends the stream
		}
		if !pause(ctx, time.Millisecond) {
			return ctx.Err()
		}
	}
}

func (c *Cache) asking() func() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ask
}

// shareQuorum is a read that is made for everybody: one that takes longer than anybody waits would keep
// those from an answer who come meanwhile.
func (c *Cache) shareQuorum(ctx context.Context) (*pb.ResponseHeader, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Patience)
	defer cancel()
	return c.quorum(ctx)
}

// batch lets any number of readers share one read of the etcd: each waits for one that began after
// it came.
type batch struct {
	turn chan *shared // holds the one that readers may still join
	work chan *shared // … once somebody did
}

// shared is one read that is to come, or is made.
type shared struct {
	waited bool
	done   chan struct{}
	header *pb.ResponseHeader
	err    error
}

func (b *batch) init() {
	b.turn, b.work = make(chan *shared, 1), make(chan *shared, 1)
	b.turn <- &shared{done: make(chan struct{})}
}

// run makes the reads.
func (b *batch) run(ctx context.Context, read func(context.Context) (*pb.ResponseHeader, error)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-b.work:
		}
		s := <-b.turn // nobody joins any more
		b.turn <- &shared{done: make(chan struct{})}
		s.header, s.err = read(ctx)
		close(s.done)
	}
}

// wait joins the next read.
func (b *batch) wait(ctx context.Context) (*pb.ResponseHeader, error) {
	s := <-b.turn
	if !s.waited {
		s.waited = true
		b.work <- s
	}
	b.turn <- s
	select {
	case <-s.done:
		if s.err == nil && s.header == nil {
			return nil, errors.New("no answer")
		}
		return s.header, s.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
