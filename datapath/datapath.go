// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/service"
	"github.com/weft-net/weft/state"
)

// Datapath is the kernel side of one node.
type Datapath struct {
	cfg     Config
	tables  Tables
	log     *slog.Logger
	ipcache *state.Table[netip.Prefix, IPCacheEntry]

	engine atomic.Pointer[engine] // what Run made; nil before and after
	users  users                  // of what the engine has open
	ready  chan struct{}          // closed by the first Run that got there
	once   sync.Once
}

// New checks the configuration and changes nothing outside. reg may be nil.
func New(cfg Config, tables Tables, log *slog.Logger, reg prometheus.Registerer) (*Datapath, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("datapath: %w", err)
	}
	if err := tables.validate(); err != nil {
		return nil, fmt.Errorf("datapath: %w", err)
	}
	d := &Datapath{
		cfg:     cfg.withDefaults(),
		tables:  tables,
		log:     log,
		ipcache: state.NewTable[netip.Prefix]("ipcache", state.Equal[IPCacheEntry]),
		ready:   make(chan struct{}),
	}
	if reg != nil {
		if err := reg.Register(collector{d}); err != nil {
			return nil, fmt.Errorf("datapath: metrics: %w", err)
		}
	}
	return d, nil
}

// Ready is closed when programs are attached and maps open: from then on endpoints can be added.
func (d *Datapath) Ready() <-chan struct{} { return d.ready }

// IPCache is the table that the maps ipcache and ipcache_prefix are made from.
func (d *Datapath) IPCache() *state.Table[netip.Prefix, IPCacheEntry] { return d.ipcache }

// Run takes over what is pinned, or begins anew, and keeps the kernel equal to the tables until ctx
// ends. It detaches and removes nothing at its end. It must not run twice at the same time.
func (d *Datapath) Run(ctx context.Context) error {
	e, err := startEngine(d)
	if err != nil {
		return fmt.Errorf("datapath: %w", err)
	}
	d.begin(e)
	defer d.end(e)
	d.once.Do(func() { close(d.ready) })
	d.log.Info("datapath is ready", "mode", d.cfg.Mode.String(), "underlay", e.keeper.underlay().name)

	group, ctx := errgroup.WithContext(ctx)
	parts := map[string]func(context.Context) error{
		"generation":            e.gen.Run,
		"derive ipcache":        func(ctx context.Context) error { return deriveIPCache(ctx, d.cfg, d.tables, d.ipcache) },
		"reconcile endpoints":   e.endpointRec.Run,
		"reconcile ipcache":     e.ipcacheRec.Run,
		"reconcile services":    e.serviceRec.Run,
		"sweep flows":           e.flows.Run,
		"keep devices":          e.keeper.Run,
		"watch the kernel":      e.keeper.watchKernel,
		"watch nodes":           e.keeper.watchTables,
		"follow paths to nodes": e.followPaths,
		"keep sockets":          e.sockets.Run,
	}
	if e.namespaceRec != nil {
		parts["reconcile namespaces"] = e.namespaceRec.Run
	}
	for name, run := range parts {
		group.Go(func() error {
			if err := run(ctx); err != nil {
				return fmt.Errorf("datapath: %s: %w", name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// IPCacheOutcome says what became of a row of IPCache in the kernel.
func (d *Datapath) IPCacheOutcome(p netip.Prefix) (state.Outcome, bool) {
	if e := d.engine.Load(); e != nil {
		return e.ipcacheRec.Outcome(p)
	}
	return state.Outcome{}, false
}

// FrontendOutcome says what became of a row of Tables.Frontends in the kernel.
func (d *Datapath) FrontendOutcome(f service.Frontend) (state.Outcome, bool) {
	if e := d.engine.Load(); e != nil {
		return e.serviceRec.Outcome(f)
	}
	return state.Outcome{}, false
}

// EndpointOutcome says what became of a row of Tables.Endpoints in the kernel.
func (d *Datapath) EndpointOutcome(slot uint16) (state.Outcome, bool) {
	if e := d.engine.Load(); e != nil {
		return e.endpointRec.Outcome(slot)
	}
	return state.Outcome{}, false
}

// ServiceName is the frontend behind a service id of a flow or an event.
func (d *Datapath) ServiceName(id uint16) (service.Frontend, bool) {
	if e := d.engine.Load(); e != nil {
		return e.services.name(uint32(id))
	}
	return service.Frontend{}, false
}

// NodeAddr is the underlay address of the node behind a node index of a flow or an event, the zero
// Addr if there is none.
func (d *Datapath) NodeAddr(index uint16) netip.Addr {
	if e := d.engine.Load(); e != nil {
		return e.nodes.addr(uint32(index))
	}
	return netip.Addr{}
}
