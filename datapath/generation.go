// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cilium/ebpf"
)

// raiseEvery is the shortest time between two raises in a burst of changes.
const raiseEvery = 10 * time.Millisecond

// generation is the number that makes flow entries stale: whoever wrote rows that established
// flows depend on calls Mark, and soon afterwards every flow is decided again.
type generation struct {
	m      *ebpf.Map
	marked chan struct{} // holds one mark

	mu sync.Mutex // makes read and write of the number one step
}

func newGeneration(m *ebpf.Map) *generation {
	return &generation{m: m, marked: make(chan struct{}, 1)}
}

// Mark asks for a raise. It does not block.
func (g *generation) Mark() {
	select {
	case g.marked <- struct{}{}:
	default:
	}
}

// Raise makes all entries stale that were decided before it was called.
func (g *generation) Raise() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var key, value uint32
	if err := g.m.Lookup(key, &value); err != nil {
		return fmt.Errorf("read generation: %w", err)
	}
	if err := g.m.Put(key, value+1); err != nil {
		return fmt.Errorf("raise generation: %w", err)
	}
	return nil
}

// Run raises after marks until ctx ends. A mark that is left then is raised before it returns: rows
// must not stay without effect until the next start.
func (g *generation) Run(ctx context.Context) error {
	for {
		select {
		case <-g.marked:
		case <-ctx.Done():
			select {
			case <-g.marked:
				return g.Raise()
			default:
				return nil
			}
		}
		if err := g.Raise(); err != nil {
			return err
		}
		pause := time.NewTimer(raiseEvery)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}
