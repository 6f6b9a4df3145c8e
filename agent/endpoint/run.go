// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// workers bounds how many endpoints Run works on at a time.
const workers = 8

// Run gets identities for the endpoints that wait for one, takes references for
// those that were restored, ends deletions that did not finish, and deletes
// endpoints whose device vanished; until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	sweep := time.NewTicker(m.cfg.SweepInterval)
	defer sweep.Stop()
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
		case <-retry.C:
		case <-sweep.C:
			m.sweep(ctx)
		}
		if m.work(ctx) {
			retry.Reset(m.cfg.RetryInterval)
		}
	}
}

// work does once what is to be done and reports whether some of it failed.
func (m *Manager) work(ctx context.Context) (again bool) {
	var todo []Endpoint
	for row := range m.tables.Endpoints.All() {
		if m.undone(row.Value) {
			todo = append(todo, row.Value)
		}
	}
	var group errgroup.Group
	group.SetLimit(workers)
	for _, e := range todo {
		group.Go(func() error { return m.finish(ctx, e) })
	}
	return group.Wait() != nil
}

// undone says that e needs Run.
func (m *Manager) undone(e Endpoint) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, busy := m.busy[e.FullName()]; busy {
		return false // whoever works on it wakes Run at the end
	}
	_, held := m.held[e.ID]
	return e.Phase == Deleting || e.Phase == Live && (!held || e.Identity == 0)
}

// finish ends a deletion or gets the number of e's labels. What a restored
// endpoint had stays in force until the store says otherwise.
func (m *Manager) finish(ctx context.Context, e Endpoint) error {
	if err := m.lock(ctx, e.FullName()); err != nil {
		return err
	}
	defer m.unlock(e.FullName())
	e, ok := m.find(e.ID, Name{})
	if !ok {
		return nil
	}
	if e.Phase == Deleting {
		return m.remove(ctx, e)
	}
	trying, cancel := context.WithTimeout(ctx, m.cfg.IdentityWait)
	defer cancel()
	_, err := m.renumber(trying, e, e)
	if err != nil && ctx.Err() == nil && e.Identity == 0 {
		e.Reason = fmt.Sprintf("no identity yet: %v", err)
		m.show(e)
	}
	return err
}

// sweep deletes the endpoints whose device is gone: their namespace was removed
// without a word. One that cannot be asked for stays.
func (m *Manager) sweep(ctx context.Context) {
	for row := range m.tables.Endpoints.All() {
		e := row.Value
		if e.Phase != Live || ctx.Err() != nil {
			continue
		}
		if present, err := m.exists(e.HostInterface); err != nil || present {
			continue
		}
		m.log.Info("endpoint's device is gone", "endpoint", e.FullName().String(), "device", e.HostInterface)
		if _, err := m.Delete(ctx, e.ID, Name{}); err != nil {
			m.log.Warn("endpoint without device not deleted", "endpoint", e.FullName().String(), "error", err)
		}
	}
}
