// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/weft-net/weft/datapath"
)

// undoTime bounds the taking back of a half-made endpoint, whose caller may be gone.
const undoTime = 10 * time.Second

// Add makes an endpoint, or returns the one that is there when it is the same one.
// Without an identity in time it returns the endpoint all the same, waiting for
// one: nothing passes until Run has got it. Errors: *SpecError, *ExistsError,
// *FullError, *ipam.ExhaustedError, *ipam.AddressError, and those of the datapath.
func (m *Manager) Add(ctx context.Context, spec Spec) (Endpoint, error) {
	if err := validate(&spec); err != nil {
		return Endpoint{}, err
	}
	if err := m.lock(ctx, spec.Name); err != nil {
		return Endpoint{}, err
	}
	defer m.done(spec.Name)

	if old, ok := m.find(0, spec.Name); ok {
		return m.addAgain(ctx, old, spec)
	}
	e, err := m.begin(spec)
	if err != nil {
		return Endpoint{}, fmt.Errorf("add %v: %w", spec.Name, err)
	}
	made, err := m.make(ctx, e)
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		if undone := m.remove(undo, made); undone != nil {
			err = errors.Join(err, undone)
		}
		return Endpoint{}, fmt.Errorf("add %v: %w", spec.Name, err)
	}
	return made, nil
}

// addAgain answers a repeated Add.
func (m *Manager) addAgain(ctx context.Context, old Endpoint, spec Spec) (Endpoint, error) {
	switch {
	case old.Phase == Deleting:
		if err := m.remove(ctx, old); err != nil {
			return Endpoint{}, fmt.Errorf("add %v: its predecessor: %w", spec.Name, err)
		}
		return Endpoint{}, &ExistsError{spec.Name, "its predecessor is only now gone; try again"}
	case old.NetNS != spec.NetNS || old.Interface != spec.Interface:
		return Endpoint{}, &ExistsError{spec.Name, fmt.Sprintf("as %s in %s; delete that one first", old.Interface, old.NetNS)}
	case !maps.Equal(old.Labels, spec.Labels):
		return Endpoint{}, &ExistsError{spec.Name, "with other labels; use 'weft endpoint set' to change them"}
	}
	return old, nil
}

// begin takes slot and addresses and notes on disk that an endpoint is being made.
func (m *Manager) begin(spec Spec) (Endpoint, error) {
	id, err := m.takeSlot()
	if err != nil {
		return Endpoint{}, err
	}
	addresses, err := m.takeAddresses(spec.Addresses)
	if err != nil {
		m.freeSlot(id)
		return Endpoint{}, err
	}
	e := Endpoint{
		ID: id, Namespace: spec.Name.Namespace, Name: spec.Name.Name, NetNS: spec.NetNS, Interface: spec.Interface,
		Addresses: addresses, Labels: spec.Labels, NamedPorts: spec.NamedPorts, ServiceAccount: spec.ServiceAccount,
		Phase: Creating, Created: time.Now().UTC().Truncate(time.Millisecond),
	}
	if err := m.put(e); err != nil {
		m.releaseAddresses(addresses)
		m.freeSlot(id)
		return Endpoint{}, err
	}
	return e, nil
}

// make gives e its device and identity and announces it. After an error the result
// is how far it came.
func (m *Manager) make(ctx context.Context, e Endpoint) (Endpoint, error) {
	device, err := m.devices.AddEndpoint(ctx, datapath.EndpointSpec{
		Slot: uint16(e.ID), Name: e.FullName().String(), NetNSPath: e.NetNS, Inside: e.Interface,
		IPv4: e.address(false), IPv6: e.address(true),
	})
	if err != nil {
		return e, err
	}
	e.HostInterface, e.MAC, e.Phase = device.IfName, device.MAC, Live

	waiting, cancel := context.WithTimeout(ctx, m.cfg.IdentityWait)
	defer cancel()
	number, set, err := m.identities.Acquire(waiting, e)
	switch {
	case err == nil:
		m.hold(e.ID, set)
	case ctx.Err() != nil:
		return e, err
	default:
		var known bool
		if number, set, known = m.identities.Known(e); !known {
			e.Reason = fmt.Sprintf("no identity yet: %v", err)
		}
	}
	e.Identity, e.IdentityLabels = number, set
	if err := m.put(e); err != nil {
		return e, err
	}
	if err := m.program(ctx, e); err != nil {
		return e, err
	}
	m.publish(e)
	m.log.Info("endpoint added", "endpoint", e.FullName().String(), "id", int(e.ID), "addresses", e.Addresses, "identity", e.Identity)
	return e, nil
}

// program writes the datapath's row and waits until the kernel has it, so that
// nobody is sent to an endpoint that drops.
func (m *Manager) program(ctx context.Context, e Endpoint) error {
	m.tables.Local.Put(Local, 0, uint16(e.ID), localRow(e))
	return m.devices.WaitEndpoint(ctx, uint16(e.ID))
}

// hold notes the reference to set that e has from now on, and gives back the one it
// had before.
func (m *Manager) hold(id ID, set string) {
	m.mu.Lock()
	old, had := m.held[id]
	m.held[id] = set
	m.mu.Unlock()
	if had {
		m.identities.Release(old)
	}
}
