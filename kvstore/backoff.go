// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/connectivity"
)

// backoff is the pause between attempts: it doubles from min to max, and each pause is spread
// over its second half, so that a thousand clients of a store that comes back do not ask at once.
type backoff struct {
	min, max time.Duration
	next     time.Duration
}

// delay returns the next pause.
func (b *backoff) delay() time.Duration {
	b.next = min(max(b.next, b.min), b.max)
	d := b.next/2 + rand.N(b.next/2+1)
	b.next *= 2
	return d
}

// pause waits for the next pause and returns false if ctx ended. A connection of c that was lost and
// stands again ends it: pauses grow while a store is away, and nobody should wait out the last one
// when it is back. The attempts to connect have a spread of their own.
func (b *backoff) pause(ctx context.Context, c *Client) bool {
	wctx, cancel := context.WithTimeout(ctx, b.delay())
	defer cancel()
	if c.returned(wctx) {
		b.reset()
	}
	return ctx.Err() == nil
}

// reset makes the next pause the shortest.
func (b *backoff) reset() { b.next = 0 }

// returned waits until ctx ends and returns false, or until the connection, which is lost now or
// will be meanwhile, stands again.
func (c *Client) returned(ctx context.Context) bool {
	conn := c.etcd.ActiveConnection()
	for s, lost := conn.GetState(), false; ; s = conn.GetState() {
		switch s {
		case connectivity.Ready:
			if lost {
				return true
			}
		case connectivity.Idle:
			lost = true
			conn.Connect() // nobody asks for anything meanwhile
		default:
			lost = true
		}
		if !conn.WaitForStateChange(ctx, s) {
			return false
		}
	}
}
