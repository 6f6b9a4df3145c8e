// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"errors"
)

// Input is what can be waited on: a [Cursor] of any table.
type Input interface {
	// subscribe returns true if there is something to read, else has ch sent to, without
	// blocking, once there is.
	subscribe(ch chan<- struct{}) (ready bool, err error)
	unsubscribe()

	// standing returns whether everything is delivered and whether the table is synced, as of
	// one moment.
	standing() (drained, synced bool)
}

var errClosed = errors.New("cursor is closed")

// Wait returns when the table has a change that the cursor has not delivered, or its sync marks
// are others than they were at the last Next. No change is missed, whenever it happens; that Next
// then finds nothing is possible, for what came may be gone again. The error is that of ctx, or
// says that the cursor is closed.
func (c *Cursor[K, V]) Wait(ctx context.Context) error { return WaitAny(ctx, c) }

// WaitAny is [Cursor.Wait] for several cursors: it returns when any of them has something. A cursor
// must not be waited on twice at the same time.
func WaitAny(ctx context.Context, inputs ...Input) error {
	wake := make(chan struct{}, 1)
	defer func() {
		for _, in := range inputs {
			in.unsubscribe()
		}
	}()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, in := range inputs {
			if ready, err := in.subscribe(wake); ready || err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
		case <-wake:
		}
	}
}

func (c *Cursor[K, V]) subscribe(ch chan<- struct{}) (bool, error) {
	c.table.mu.Lock()
	defer c.table.mu.Unlock()
	if c.closed {
		return false, errClosed
	}
	if c.seen != c.table.revision || c.marks != c.table.marks {
		return true, nil
	}
	c.waiter = ch
	return false, nil
}

func (c *Cursor[K, V]) unsubscribe() {
	c.table.mu.Lock()
	defer c.table.mu.Unlock()
	c.waiter = nil
}

// wakeLocked wakes the cursor's waiter. The send never blocks: the channel has room for one, and
// one is enough, because the waiter looks at every cursor again.
func (c *Cursor[K, V]) wakeLocked() {
	if c.waiter == nil {
		return
	}
	select {
	case c.waiter <- struct{}{}:
	default:
	}
	c.waiter = nil
}

// Drained says that everything in the table has been delivered.
func (c *Cursor[K, V]) Drained() bool {
	drained, _ := c.standing()
	return drained
}

// Synced says that the table is synced and that everything in it has been delivered.
func (c *Cursor[K, V]) Synced() bool {
	drained, synced := c.standing()
	return drained && synced
}

func (c *Cursor[K, V]) standing() (drained, synced bool) {
	c.table.mu.RLock()
	defer c.table.mu.RUnlock()
	return c.next == none, c.table.syncedLocked()
}
