// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"time"
)

// pair is client and server of one variant.
type pair struct {
	name           string
	path           Path
	client, server *process
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
		if err := p.path.BeforeSlot(w); err != nil {
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

// cpuTime is the processor time of both ends so far.
func (p *pair) cpuTime() (int64, error) {
	c, err := p.client.cpuTime()
	if err != nil {
		return 0, err
	}
	s, err := p.server.cpuTime()
	return c + s, err
}
