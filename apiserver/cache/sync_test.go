// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestCache_AsksOnceForMany lets many wait for the etcd's word at the same time, and one member hang.
func TestCache_AsksOnceForMany(t *testing.T) {
	asked := 0
	c := &Cache{questions: make(chan struct{}, 1), cfg: Config{Patience: time.Millisecond}.withDefaults()}
	ctx, cancel := context.WithCancel(t.Context())
	c.ask = func() error {
		for range 100 { // who comes while it is asked is content with one more question
			select {
			case c.questions <- struct{}{}:
			default:
			}
		}
		if asked++; asked == 10 {
			cancel()
		}
		return nil
	}
	c.questions <- struct{}{}
	if err := c.askAll(ctx); err != context.Canceled || asked != 10 {
		t.Errorf("asked %d times: %v", asked, err)
	}

	f := newFixture(t, Config{Patience: 200 * time.Millisecond}, nil)
	f.Proxy.Freeze()
	if _, err := f.cache.shareQuorum(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a member that hangs keeps a read: %v", err)
	}
	f.Proxy.Thaw()
	f.wantSynced(t)
}
