// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// A Leftover is an endpoint that the kernel has from an earlier run.
type Leftover struct {
	ID        ID
	Addresses []netip.Addr
}

// Restore brings back what an earlier run kept on disk: the same slots, addresses
// and identities. It does no more than read files, so that the datapath knows all
// its endpoints before it removes anything. Endpoints that were being made or
// deleted, or whose device is gone, are deleted by Run. Call it once, before Run.
//
// It compares them with what the kernel has, of which unasked says why it could not
// be asked. A file is written before its endpoint comes into the kernel and removed
// after it left it: an endpoint of the kernel that has none was not deleted, its
// file was. It stays as it is, and nothing is pruned, as with a file that cannot be
// read (see Broken), at every start until Delete is told its id.
func (m *Manager) Restore(kernel []Leftover, unasked error) error {
	found, broken, err := m.disk.load()
	if err != nil {
		return err
	}
	recorded := map[ID]bool{}
	for _, e := range found {
		if err := m.restore(e); err != nil {
			broken = append(broken, &RecordError{m.disk.path(e.ID), e.ID, err})
			continue
		}
		recorded[e.ID] = true
	}
	unreadable := map[ID]bool{}
	for _, b := range broken {
		unreadable[b.ID] = true
	}
	for _, l := range kernel {
		if recorded[l.ID] {
			continue
		}
		m.quarantine(l)
		if !unreadable[l.ID] {
			broken = append(broken, &RecordError{m.disk.path(l.ID), l.ID, fmt.Errorf("is not there, but the kernel has endpoint %d with %v", l.ID, l.Addresses)})
		}
	}
	if unasked != nil {
		broken = append(broken, &RecordError{Path: m.disk.dir, Err: fmt.Errorf("cannot be compared with the kernel: %w", unasked)})
	}
	m.mu.Lock()
	m.broken = broken
	for _, b := range broken {
		m.slots[b.ID] = true // not used again while somebody may be behind it
	}
	m.mu.Unlock()
	for _, b := range broken {
		m.log.Error("endpoints cannot be restored", "file", b.Path, "error", b.Err)
	}
	if len(broken) == 0 { // else nothing may be pruned: one of ours is missing
		m.markSynced()
	}
	if len(found) > 0 {
		m.log.Info("endpoints restored", "count", len(found), "unreadable", len(broken))
		m.poke()
	}
	return nil
}

// markSynced says that the tables hold all our endpoints: others may be pruned.
func (m *Manager) markSynced() {
	m.tables.Endpoints.MarkSynced(Local)
	m.tables.Local.MarkSynced(Local)
	m.tables.Published.MarkSynced(Local)
}

// quarantine keeps slot and addresses from being given out.
func (m *Manager) quarantine(l Leftover) {
	var taken []netip.Addr
	for _, a := range l.Addresses {
		if pool := m.pool(a.Is6()); pool != nil && pool.Prefix().Contains(a) {
			if err := pool.Take(a); err != nil {
				m.log.Warn("address of a leftover endpoint", "address", a, "error", err)
				continue
			}
			taken = append(taken, a)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.slots[l.ID] = true
	m.leftover[l.ID] = taken
}

// restore enters one endpoint. What the kernel cannot be asked about is taken to
// be there.
func (m *Manager) restore(e Endpoint) error {
	m.mu.Lock()
	m.slots[e.ID] = true
	m.last = max(m.last, e.ID)
	m.mu.Unlock()
	for _, a := range e.Addresses {
		pool := m.pool(a.Is6())
		if pool == nil || !pool.Prefix().Contains(a) {
			e.Reason = fmt.Sprintf("address %v is not of the node's pod CIDRs any more", a)
			continue
		}
		if err := pool.Take(a); err != nil {
			return err
		}
	}
	if e.Phase == Live {
		if present, err := m.exists(e.HostInterface); err == nil && !present {
			m.log.Info("endpoint's device is gone", "endpoint", e.FullName().String(), "device", e.HostInterface)
			e.Phase = Deleting
		}
	}
	if e.Phase == Creating {
		e.Phase = Deleting
	}
	m.show(e)
	if e.Phase == Live {
		m.tables.Local.Put(Local, 0, uint16(e.ID), localRow(e))
		m.publish(e)
	}
	return nil
}

// deviceExists asks the kernel; an error means that it could not be asked.
func deviceExists(name string) (bool, error) {
	_, err := net.InterfaceByName(name)
	if err == nil {
		return true, nil
	}
	list, err := net.Interfaces() // by name the error does not tell "no such" from "could not ask"
	if err != nil {
		return false, errors.New("list devices: " + err.Error())
	}
	for _, i := range list {
		if i.Name == name {
			return true, nil
		}
	}
	return false, nil
}
