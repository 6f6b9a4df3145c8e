// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// users counts who works with the maps and sockets of an engine: they are closed when the last has
// finished. A number of a closed file may be another file's by then.
type users struct {
	mu  sync.Mutex // orders the first use and the end of an engine
	now sync.WaitGroup
}

var errStopped = errors.New("datapath has stopped")

// begin gives an engine to those who wait for one.
func (d *Datapath) begin(e *engine) {
	d.users.mu.Lock()
	defer d.users.mu.Unlock()
	d.engine.Store(e)
}

// end takes the engine away from new users, waits for those that have it, and closes it.
func (d *Datapath) end(e *engine) {
	d.users.mu.Lock()
	d.engine.Store(nil)
	d.users.mu.Unlock()
	close(e.ended)
	d.users.now.Wait()
	e.Close()
}

// use returns the engine if there is one. It stays open until done is called, which must be soon:
// Run does not return before. What keeps to memory can do with d.engine alone.
func (d *Datapath) use() (e *engine, done func(), ok bool) {
	d.users.mu.Lock()
	defer d.users.mu.Unlock()
	if e = d.engine.Load(); e == nil {
		return nil, nil, false
	}
	d.users.now.Add(1)
	return e, d.users.now.Done, true
}

// await waits until Run has made an engine and uses it, as use does.
func (d *Datapath) await(ctx context.Context) (e *engine, done func(), err error) {
	select {
	case <-d.ready:
		if e, done, ok := d.use(); ok {
			return e, done, nil
		}
		return nil, nil, errStopped
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("datapath is not ready: %w", ctx.Err())
	}
}
