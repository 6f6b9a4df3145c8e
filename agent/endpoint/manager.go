// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/weft-net/weft/agent/ipam"
	"github.com/weft-net/weft/datapath"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// Local is the source of all rows that a Manager writes.
const Local state.Source = "local"

// Config says what the endpoints of this node have in common.
type Config struct {
	Cluster, Node string
	Dir           string // one file per endpoint
	Limit         int    // slots 1 to Limit are used
	// IdentityWait is how long Add waits for an identity before it leaves that to
	// Run. Zero: 3 s.
	IdentityWait time.Duration
	// RetryInterval is how long Run waits before it tries again what failed. Zero: 2 s.
	RetryInterval time.Duration
	// SweepInterval is how often Run looks whether devices are still there. Zero: 30 s.
	SweepInterval time.Duration
}

// Devices makes what an endpoint is in the kernel; it is *datapath.Datapath.
type Devices interface {
	AddEndpoint(context.Context, datapath.EndpointSpec) (datapath.EndpointDevice, error)
	// DeleteEndpoint comes after the row of the slot is gone from Tables.Local; once
	// it returns nil the slot may be used again. It is idempotent.
	DeleteEndpoint(ctx context.Context, slot uint16) error
	WaitEndpoint(ctx context.Context, slot uint16) error
}

// Identities gives label sets their numbers.
type Identities interface {
	// Acquire returns the number of the labels that matter of e, and that set in wire
	// form. It blocks until there is one or ctx ends. Each success holds
	// one reference.
	Acquire(ctx context.Context, e Endpoint) (number uint32, set string, err error)
	// Known returns the same as far as the last known table has it, without a reference:
	// what an endpoint starts with while the store is away.
	Known(e Endpoint) (number uint32, set string, ok bool)
	// Release gives one reference back. It does not block.
	Release(set string)
}

// Tables are those that a Manager writes, as their only writer.
type Tables struct {
	Endpoints *state.Table[ID, Endpoint]
	Local     *state.Table[uint16, datapath.LocalEndpoint]
	Published *state.Table[schema.EndpointKey, schema.Endpoint]
}

// NewTables returns empty ones.
func NewTables() Tables {
	return Tables{
		Endpoints: state.NewTable[ID]("local-endpoints", Endpoint.Equal),
		Local:     state.NewTable[uint16]("datapath-endpoints", state.Equal[datapath.LocalEndpoint]),
		Published: state.NewTable[schema.EndpointKey]("published-endpoints", schema.Endpoint.Equal),
	}
}

// Manager owns the endpoints of this node. It is safe for concurrent use; calls
// about one endpoint run one after the other.
type Manager struct {
	cfg        Config
	tables     Tables
	devices    Devices
	identities Identities
	pools      []*ipam.Pool // at most one per family, IPv4 first
	disk       disk
	log        *slog.Logger
	exists     func(device string) (bool, error)

	wake chan struct{} // Run has something to do; one token

	mu     sync.Mutex
	byName map[Name]ID
	busy   map[Name]chan struct{} // closed when the one who works on it is done
	slots  map[ID]bool
	last   ID            // slot given out last
	held   map[ID]string // label set of which this process holds a reference for the endpoint
	broken []*RecordError
	// leftover are the addresses kept for endpoints of which only the kernel knows.
	leftover map[ID][]netip.Addr
}

// New returns a Manager without endpoints; Restore brings back those on disk.
func New(cfg Config, tables Tables, pools []*ipam.Pool, devices Devices, identities Identities, log *slog.Logger) *Manager {
	if cfg.IdentityWait == 0 {
		cfg.IdentityWait = 3 * time.Second
	}
	if cfg.RetryInterval == 0 {
		cfg.RetryInterval = 2 * time.Second
	}
	if cfg.SweepInterval == 0 {
		cfg.SweepInterval = 30 * time.Second
	}
	tables.Endpoints.Expect(Local)
	tables.Local.Expect(Local)
	tables.Published.Expect(Local)
	return &Manager{
		cfg: cfg, tables: tables, devices: devices, identities: identities, pools: pools, disk: disk{cfg.Dir}, log: log,
		exists: deviceExists, wake: make(chan struct{}, 1),
		byName: map[Name]ID{}, busy: map[Name]chan struct{}{}, slots: map[ID]bool{}, held: map[ID]string{}, leftover: map[ID][]netip.Addr{},
	}
}

// Broken lists the files that Restore could not read, or missed, and that were not
// deleted since.
func (m *Manager) Broken() []*RecordError {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.broken
}

// List returns all endpoints in order of their ids.
func (m *Manager) List() []Endpoint {
	var list []Endpoint
	for row := range m.tables.Endpoints.All() {
		list = append(list, row.Value)
	}
	slices.SortFunc(list, func(a, b Endpoint) int { return int(a.ID) - int(b.ID) })
	return list
}

// lock waits until nobody else works on the endpoint of that name. The caller
// calls unlock or done.
func (m *Manager) lock(ctx context.Context, n Name) error {
	for {
		m.mu.Lock()
		wait, taken := m.busy[n]
		if !taken {
			m.busy[n] = make(chan struct{})
			m.mu.Unlock()
			return nil
		}
		m.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return fmt.Errorf("endpoint %v: wait for another call: %w", n, ctx.Err())
		}
	}
}

func (m *Manager) unlock(n Name) {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.busy[n])
	delete(m.busy, n)
}

// done is unlock for callers from outside: what they left to Run begins.
func (m *Manager) done(n Name) {
	m.unlock(n)
	m.poke()
}

// takeSlot gives out a slot, going round, so that it is used again late.
func (m *Manager) takeSlot() (ID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range m.cfg.Limit {
		m.last++
		if int(m.last) > m.cfg.Limit || m.last == 0 {
			m.last = 1
		}
		if !m.slots[m.last] {
			m.slots[m.last] = true
			return m.last, nil
		}
	}
	return 0, &FullError{m.cfg.Limit}
}

func (m *Manager) freeSlot(id ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.slots, id)
}

// takeAddresses takes the wanted addresses, and a free one of each family that has
// a pool and no wish.
func (m *Manager) takeAddresses(wanted []netip.Addr) (got []netip.Addr, err error) {
	defer func() {
		if err != nil {
			m.releaseAddresses(got)
			got = nil
		}
	}()
	for _, a := range wanted {
		if m.pool(a.Is6()) == nil {
			return got, &SpecError{"addresses", fmt.Sprintf("%v: the node has no range of its family", a)}
		}
	}
	for _, pool := range m.pools {
		var a netip.Addr
		for _, w := range wanted {
			if w.Is6() == pool.Prefix().Addr().Is6() {
				a = w
			}
		}
		if a.IsValid() {
			err = pool.Take(a)
		} else {
			a, err = pool.Allocate()
		}
		if err != nil {
			return got, err
		}
		got = append(got, a)
	}
	return got, nil
}

func (m *Manager) pool(v6 bool) *ipam.Pool {
	for _, p := range m.pools {
		if p.Prefix().Addr().Is6() == v6 {
			return p
		}
	}
	return nil
}

func (m *Manager) releaseAddresses(addresses []netip.Addr) {
	for _, a := range addresses {
		if p := m.pool(a.Is6()); p != nil {
			p.Release(a)
		}
	}
}

// find returns the endpoint with that id, or else with that name.
func (m *Manager) find(id ID, n Name) (Endpoint, bool) {
	if id == 0 {
		m.mu.Lock()
		id = m.byName[n]
		m.mu.Unlock()
	}
	row, ok := m.tables.Endpoints.Get(id)
	return row.Value, ok
}

// put makes e the version on disk and in the table of endpoints.
func (m *Manager) put(e Endpoint) error {
	if err := m.disk.save(e); err != nil {
		return err
	}
	m.show(e)
	return nil
}

// show puts e into the table of endpoints without touching the disk.
func (m *Manager) show(e Endpoint) {
	m.mu.Lock()
	m.byName[e.FullName()] = e.ID
	m.mu.Unlock()
	m.tables.Endpoints.Put(Local, 0, e.ID, e)
}

// publish makes the row that others see of e equal to e.
func (m *Manager) publish(e Endpoint) {
	key := schema.EndpointKey{Cluster: m.cfg.Cluster, Node: m.cfg.Node, ID: uint32(e.ID)}
	if published(e) {
		m.tables.Published.Put(Local, 0, key, endpointRow(e))
	} else {
		m.tables.Published.Delete(Local, 0, key)
	}
}

// poke tells Run that there is something to do.
func (m *Manager) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}
