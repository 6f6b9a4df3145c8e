// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/stats"
)

// smallAnswer is what an answer may have without asking the budget: the transport buffers that much
// of each stream anyway.
const smallAnswer = 64 << 10

// budget bounds the bytes of all large answers that are on their way together. An answer holds its
// bytes until the call has ended, which is when the transport has taken them.
type budget struct {
	whole int64
	free  *semaphore.Weighted
	used  atomic.Int64
}

func newBudget(bytes int64) *budget { return &budget{whole: bytes, free: semaphore.NewWeighted(bytes)} }

// holding is what one call has of the budget.
type holding struct{ bytes atomic.Int64 }

type holdingKey struct{}

// take waits until an answer of n bytes may be sent. An answer larger than the budget has it alone.
func (b *budget) take(ctx context.Context, n int64) error {
	h, ok := ctx.Value(holdingKey{}).(*holding)
	if n <= smallAnswer || !ok {
		return nil
	}
	n = min(n, b.whole)
	if err := b.free.Acquire(ctx, n); err != nil {
		return err
	}
	b.used.Add(n)
	h.bytes.Add(n)
	return nil
}

// give returns what a call has.
func (b *budget) give(ctx context.Context) {
	h, ok := ctx.Value(holdingKey{}).(*holding)
	if !ok {
		return
	}
	if n := h.bytes.Swap(0); n > 0 {
		b.used.Add(-n)
		b.free.Release(n)
	}
}

// TagRPC, HandleRPC, TagConn and HandleConn make the budget a stats.Handler: that is where the
// library says that a call has ended.
func (b *budget) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, holdingKey{}, new(holding))
}

// HandleRPC takes note of the end of a call.
func (b *budget) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.End); ok {
		b.give(ctx)
	}
}

// TagConn does nothing.
func (b *budget) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn does nothing.
func (b *budget) HandleConn(context.Context, stats.ConnStats) {}
