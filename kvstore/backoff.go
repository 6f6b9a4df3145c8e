// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"math/rand/v2"
	"time"
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

// pause waits for the next pause and returns false if ctx ended.
func (b *backoff) pause(ctx context.Context) bool {
	t := time.NewTimer(b.delay())
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// reset makes the next pause the shortest.
func (b *backoff) reset() { b.next = 0 }
