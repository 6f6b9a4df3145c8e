// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"sync"

	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// gate lets a mirror fall behind.
type gate struct {
	mu   sync.Mutex
	open chan struct{} // closed: changes pass
}

func newGate() *gate {
	g := &gate{open: make(chan struct{})}
	close(g.open)
	return g
}

// shut keeps changes until open is called.
func (g *gate) shut() (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := make(chan struct{})
	g.open = c
	return func() { close(c) }
}

func (g *gate) wait(ctx context.Context) {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	select {
	case <-open:
	case <-ctx.Done():
	}
}

// feed passes changes of one table on to another, as long as the gate is open.
func feed(ctx context.Context, g *gate, from, to *state.Table[schema.IdentityKey, string]) error {
	cursor := from.Cursor()
	defer cursor.Close()
	for {
		g.wait(ctx)
		for changes := cursor.Next(10); len(changes) > 0; changes = cursor.Next(10) {
			for _, c := range changes {
				if c.Deleted {
					to.Delete("etcd", 0, c.Key)
				} else {
					row, _ := from.Get(c.Key)
					to.Put("etcd", row.Origin, c.Key, c.Value)
				}
			}
			g.wait(ctx)
		}
		if cursor.Synced() {
			to.MarkSynced("etcd")
		}
		if err := cursor.Wait(ctx); err != nil {
			return ctx.Err()
		}
	}
}
