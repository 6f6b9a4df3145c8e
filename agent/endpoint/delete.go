// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"context"
	"fmt"
	"slices"
	"strconv"
)

// Delete takes an endpoint out of the network; by id, or by name where id is 0. It
// reports whether there was one. After an error Run goes on trying. By id it also
// takes out one that Restore found broken.
func (m *Manager) Delete(ctx context.Context, id ID, n Name) (bool, error) {
	e, ok := m.find(id, n)
	if !ok {
		return m.deleteBroken(ctx, id)
	}
	if err := m.lock(ctx, e.FullName()); err != nil {
		return true, err
	}
	defer m.done(e.FullName())
	e, ok = m.find(e.ID, Name{}) // as it is now that nobody else works on it
	if !ok || id == 0 && e.FullName() != n {
		return false, nil
	}
	if err := m.remove(ctx, e); err != nil {
		return true, fmt.Errorf("delete %v: %w", e.FullName(), err)
	}
	return true, nil
}

// deleteBroken takes out of the kernel what Restore found there without a usable
// file. After the last one pruning begins.
func (m *Manager) deleteBroken(ctx context.Context, id ID) (bool, error) {
	if !m.isBroken(id) {
		return false, nil
	}
	key := Name{Name: strconv.Itoa(int(id))} // nobody's: no name is without namespace
	if err := m.lock(ctx, key); err != nil {
		return true, err
	}
	defer m.done(key)
	if !m.isBroken(id) {
		return false, nil
	}
	if err := m.devices.DeleteEndpoint(ctx, uint16(id)); err != nil {
		return true, fmt.Errorf("delete endpoint %d: %w", id, err)
	}
	if err := m.disk.remove(id); err != nil {
		return true, err
	}
	m.mu.Lock()
	addresses := m.leftover[id]
	delete(m.leftover, id)
	delete(m.slots, id)
	// A new slice: somebody may be reading the old one.
	m.broken = slices.DeleteFunc(slices.Clone(m.broken), func(b *RecordError) bool { return b.ID == id })
	last := len(m.broken) == 0
	m.mu.Unlock()
	m.releaseAddresses(addresses)
	m.log.Info("broken endpoint deleted", "id", int(id), "addresses", addresses)
	if last {
		m.markSynced()
	}
	return true, nil
}

func (m *Manager) isBroken(id ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return id != 0 && slices.ContainsFunc(m.broken, func(b *RecordError) bool { return b.ID == id })
}

// remove undoes everything that may be there of e: first what others see, then the
// device, then identity, file, addresses and slot. The caller holds its lock.
func (m *Manager) remove(ctx context.Context, e Endpoint) error {
	e.Phase, e.Reason = Deleting, ""
	if err := m.put(e); err != nil {
		return err
	}
	m.publish(e)
	m.tables.Local.Delete(Local, 0, uint16(e.ID))
	if err := m.devices.DeleteEndpoint(ctx, uint16(e.ID)); err != nil {
		e.Reason = err.Error()
		m.show(e)
		return err
	}
	m.releaseIdentity(e.ID)
	if err := m.disk.remove(e.ID); err != nil {
		return err
	}
	m.tables.Endpoints.Delete(Local, 0, e.ID)
	m.releaseAddresses(e.Addresses)
	m.mu.Lock()
	delete(m.byName, e.FullName())
	delete(m.slots, e.ID)
	m.mu.Unlock()
	m.log.Info("endpoint deleted", "endpoint", e.FullName().String(), "id", int(e.ID), "addresses", e.Addresses)
	return nil
}

// releaseIdentity gives the reference back if this process holds one.
func (m *Manager) releaseIdentity(id ID) {
	m.mu.Lock()
	set, held := m.held[id]
	delete(m.held, id)
	m.mu.Unlock()
	if held {
		m.identities.Release(set)
	}
}
