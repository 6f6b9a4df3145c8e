// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"time"
)

// How often the MTU of the paths to other nodes is asked for: soon after the kernel announces a
// change of routes or devices, and now and then, for what it learns from ICMP is not announced.
const (
	pathInterval = 5 * time.Second
	pathPause    = time.Second // at least, between two rounds
	releaseEvery = 10 * time.Minute
)

// kickPaths asks for a round. It does not block.
func (e *engine) kickPaths() {
	select {
	case e.pathKick <- struct{}{}:
	default:
	}
}

// followPaths writes changed path MTUs into the nodes map, and frees indexes of nodes that are gone.
func (e *engine) followPaths(ctx context.Context) error {
	tick := time.NewTicker(pathInterval)
	defer tick.Stop()
	released := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-e.pathKick:
		}
		changed, err := e.nodes.refreshMTUs()
		if err != nil {
			return err
		}
		if changed {
			e.gen.Mark()
		}
		if time.Since(released) > releaseEvery {
			released = time.Now()
			if err := e.ipcacheOps.releaseNodes(); err != nil {
				return err
			}
		}
		pause := time.NewTimer(pathPause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-pause.C:
		}
	}
}
