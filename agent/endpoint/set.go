// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"context"
	"errors"
	"fmt"

	"github.com/weft-net/weft/kvstore/schema"
)

// Change says what Set changes; nil fields stay.
type Change struct {
	Labels    map[string]string // the whole new set
	Readiness *schema.EndpointState
}

// Set changes a live endpoint; by id, or by name where id is 0. New labels that
// mean another identity need its number: where there is none in time everything
// stays as it was.
func (m *Manager) Set(ctx context.Context, id ID, n Name, c Change) (Endpoint, error) {
	e, ok := m.find(id, n)
	if !ok {
		return Endpoint{}, &NotFoundError{what(id, n)}
	}
	if err := m.lock(ctx, e.FullName()); err != nil {
		return Endpoint{}, err
	}
	defer m.done(e.FullName())
	if e, ok = m.find(e.ID, Name{}); !ok || e.Phase != Live {
		return Endpoint{}, &NotFoundError{what(id, n)}
	}
	old := e
	if c.Readiness != nil {
		e.Readiness = *c.Readiness
	}
	if c.Labels != nil {
		if err := validateLabels(c.Labels); err != nil {
			return Endpoint{}, err
		}
		e.Labels = c.Labels
		waiting, cancel := context.WithTimeout(ctx, m.cfg.IdentityWait)
		defer cancel()
		next, err := m.renumber(waiting, old, e)
		if err != nil {
			return Endpoint{}, fmt.Errorf("set labels of %v: %w", e.FullName(), err)
		}
		return next, nil
	}
	if err := m.put(e); err != nil {
		return Endpoint{}, err
	}
	m.publish(e)
	return e, nil
}

// renumber makes of old what e is with the number of its labels, and announces it.
// After an error old is in force as before, with the reference it had. The caller
// holds its lock.
func (m *Manager) renumber(ctx context.Context, old, e Endpoint) (Endpoint, error) {
	number, set, err := m.identities.Acquire(ctx, e)
	if err != nil {
		return old, err
	}
	e.Identity, e.IdentityLabels, e.Reason = number, set, ""
	err = m.program(ctx, e)
	if err == nil {
		err = m.put(e)
	}
	if err != nil {
		m.tables.Local.Put(Local, 0, uint16(old.ID), localRow(old))
		m.identities.Release(set)
		return old, err
	}
	m.hold(e.ID, set) // gives the old one back; of the same set there were two
	if number != old.Identity && old.Identity != 0 {
		m.log.Info("endpoint has another identity", "endpoint", e.FullName().String(), "was", old.Identity, "identity", number)
	}
	m.publish(e)
	return e, nil
}

// Renumber gives all endpoints of a label set another number: the store turned out
// to hold another truth. Others learn it before the datapath uses it.
func (m *Manager) Renumber(ctx context.Context, set string, number uint32) error {
	var errs []error
	for row := range m.tables.Endpoints.All() {
		if e := row.Value; e.IdentityLabels == set && e.Identity != number && e.Phase == Live {
			errs = append(errs, m.renumberOne(ctx, e.ID, e.FullName(), set, number))
		}
	}
	return errors.Join(errs...)
}

func (m *Manager) renumberOne(ctx context.Context, id ID, n Name, set string, number uint32) error {
	if err := m.lock(ctx, n); err != nil {
		return err
	}
	defer m.done(n)
	e, ok := m.find(id, Name{})
	if !ok || e.Phase != Live || e.IdentityLabels != set || e.Identity == number {
		return nil
	}
	m.log.Info("endpoint has another identity", "endpoint", n.String(), "was", e.Identity, "identity", number)
	e.Identity = number
	if err := m.put(e); err != nil {
		return err
	}
	m.publish(e)
	return m.program(ctx, e)
}

func what(id ID, n Name) string {
	if id != 0 {
		return fmt.Sprint(id)
	}
	return n.String()
}
