// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/weft-net/weft/kvstore/kvstoretest"
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

// TestCache_RefusedReadsAreAskedAgain: a connection that ended is made anew before a read is answered with
// what may be old, but no read waits for longer than it has patience.
func TestCache_RefusedReadsAreAskedAgain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		patience time.Duration
		refusals int
		fresh    bool
	}{
		{"some", time.Minute, 3, true},
		{"all", 50 * time.Millisecond, 1 << 30, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := &Cache{cfg: Config{Patience: tt.patience}.withDefaults()}
			c.reads.init()
			c.gen.Store(newGeneration(NewStore(History{}, 5, nil), 7, "", nil))
			asked := 0
			kvstoretest.Go(t, func(ctx context.Context) error {
				return c.reads.run(ctx, func(context.Context) (*pb.ResponseHeader, error) {
					if asked++; asked <= tt.refusals {
						return nil, errors.New("refused")
					}
					return &pb.ResponseHeader{ClusterId: 7, Revision: 5}, nil
				})
			})
			if fresh, err := c.Sync(t.Context()); fresh != tt.fresh || err != nil {
				t.Errorf("fresh %t, %v; want %t", fresh, err, tt.fresh)
			}
		})
	}
}
