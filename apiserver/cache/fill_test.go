// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// TestCache_AsksForTheHistoryAgain lets the question for it fail now and then, and for good.
func TestCache_AsksForTheHistoryAgain(t *testing.T) {
	f := &fixture{Server: kvstoretest.Start(t, kvstoretest.Options{})}
	f.direct = f.Client()
	f.Put(f.direct, "cilium/state/a", "1")
	last := f.Put(f.direct, "cilium/state/a", "2")
	for name, tt := range map[string]struct {
		err     error
		fails   int
		asked   int
		history bool
	}{
		"passes":        {rpctypes.ErrNoLeader, 3, 4, true},
		"does-not-pass": {rpctypes.ErrNoLeader, 1000, fillTries, false},
		"not-permitted": {rpctypes.ErrPermissionDenied, 1000, 1, false},
		"another-store": {errChanged, 1000, 1, false},
		"is-compacted":  {&CompactedError{1 << 40}, 1000, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			f.edit = func(c *Cache) {
				c.between = time.Millisecond
				c.past = func(ctx context.Context, gen *Generation, from, through int64) ([]past, error) {
					if asked.Add(1) <= int64(tt.fails) {
						return nil, fmt.Errorf("history: %w", tt.err)
					}
					return c.fetch(ctx, gen, from, through)
				}
			}
			f.start(t, Config{})
			defer f.stop()
			if floor := f.cache.Generation().Store.Stats().Floor; (floor < last) != tt.history {
				t.Errorf("floor %d of %d", floor, last)
			}
			if n := asked.Load(); n != int64(tt.asked) {
				t.Errorf("asked %d times, want %d", n, tt.asked)
			}
		})
	}
}
