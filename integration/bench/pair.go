// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// pair is client and server of one variant.
type pair struct {
	name           string
	path           Path
	client, server *process
	cpu            int
	softirq        int // kernel thread that works for them too
}

// try finds out whether a path works at all, and lets it learn addresses: a datagram may be lost
// while it does.
func (p *pair) try(w Workload) error {
	var s Slot
	for range 3 {
		var err error
		if s, err = p.slot(w, time.Millisecond); err != nil {
			return err
		}
		if s.Errors == 0 {
			return nil
		}
	}
	return errors.New(s.Error)
}

// slot runs one slot of a pair, with its processor time.
func (p *pair) slot(w Workload, d time.Duration) (Slot, error) {
	if p.path.BeforeSlot != nil {
		// On the processor of the measurement: elements of maps return to the free list of the
		// processor that deletes them, and their memory into its cache.
		if err := onCPU(p.cpu, func() error { return p.path.BeforeSlot(w) }); err != nil {
			return Slot{}, fmt.Errorf("before a slot: %w", err)
		}
	}
	before, err := p.cpuTime()
	if err != nil {
		return Slot{}, err
	}
	s, err := p.client.slot(d)
	if err != nil {
		return Slot{}, err
	}
	after, err := p.cpuTime()
	if err != nil {
		return Slot{}, err
	}
	// The processor time includes the slot's warm-up, its operations do not.
	s.CPU = int64(float64(after-before) * float64(s.NS) / float64(max(int64(d), s.NS)))
	return s, nil
}

// cpuTime is the processor time of both ends so far, with what the kernel does for them.
func (p *pair) cpuTime() (int64, error) {
	c, err := p.client.cpuTime()
	if err != nil {
		return 0, err
	}
	s, err := p.server.cpuTime()
	if err != nil {
		return 0, err
	}
	k, err := cpuTime(p.softirq)
	return c + s + k, err
}

// onCPU runs f on one processor.
func onCPU(cpu int, f func() error) error {
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and with it the restriction.
		runtime.LockOSThread()
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			result <- fmt.Errorf("pin to processor %d: %w", cpu, err)
			return
		}
		result <- f()
	}()
	return <-result
}
