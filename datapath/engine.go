// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"time"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/service"
	"github.com/weft-net/weft/state"
)

// engine is everything that one Run of a Datapath has open.
type engine struct {
	d        *Datapath
	host     *host
	pins     pins
	objects  *bpf.Objects
	attacher *attacher
	keeper   *keeper
	sockets  *sockets

	gen         *generation
	nodes       *nodeMap
	flows       *flowTable
	services    *serviceOps
	ipcacheOps  *ipcacheOps
	endpointOps *endpointOps

	endpointRec *state.Reconciler[uint16, LocalEndpoint]
	ipcacheRec  *state.Reconciler[netip.Prefix, IPCacheEntry]
	serviceRec  *state.Reconciler[service.Frontend, service.Service]
	// namespaceRec is nil where sockets of endpoints are not given backends.
	namespaceRec *state.Reconciler[uint16, LocalEndpoint]

	endpoints endpointLocks
	pathKick  chan struct{} // holds one request to ask for path MTUs
	ended     chan struct{} // closed when Run ends
}

// startEngine does what comes before Ready. The programs of this run are in force when it returns.
func startEngine(d *Datapath) (_ *engine, err error) {
	e := &engine{d: d, pins: pinsOf(d.cfg.BPFRoot, d.cfg.NodeName), pathKick: make(chan struct{}, 1), ended: make(chan struct{})}
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	if e.host, err = openHost(d.cfg.NetNS); err != nil {
		return nil, err
	}
	if err := e.pins.make(d.cfg.BPFRoot); err != nil {
		return nil, err
	}
	l, old, err := load(e.pins, d.cfg)
	if err != nil {
		return nil, err
	}
	e.objects = l.objects
	e.sockets = &sockets{cfg: d.cfg, pins: e.pins, log: d.log, objects: l.sockets, refused: l.refused}
	e.attacher = &attacher{host: e.host, pins: e.pins, objects: e.objects}
	e.keeper = newKeeper(e)
	if err := e.openMaps(); err != nil {
		return nil, err
	}
	// What endpoints have now goes on with the new programs before anything else is touched.
	if err := e.takeOverEndpoints(); err != nil {
		return nil, err
	}
	if err := e.keeper.ensure(); err != nil {
		return nil, err
	}
	if err := e.sockets.ensure(); err != nil {
		d.log.Warn("programs at sockets are not as they should be", "error", err)
	}
	for _, dir := range old {
		if err := removePins(dir); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// openMaps reads the maps and makes what writes them.
func (e *engine) openMaps() (err error) {
	d := e.d
	ticks, err := clockRate()
	if err != nil {
		return err
	}
	e.gen = newGeneration(e.objects.Generation)
	if e.nodes, err = openNodeMap(e.objects, d.cfg.Mode == ModeVXLAN, e.host.pathMTU); err != nil {
		return err
	}
	changed, err := e.nodes.setSelf(selfRow(d.cfg))
	if err != nil {
		return err
	}
	if changed {
		e.gen.Mark()
	}
	if e.ipcacheOps, err = openIPCache(e.objects, e.nodes, e.gen); err != nil {
		return err
	}
	e.flows = newFlowTable(e.objects, d.cfg.programs(""), d.cfg.GCInterval, ticks)
	if e.services, err = openServices(e.objects, e.flows.endBackends); err != nil {
		return err
	}
	e.flows.swept = e.services.free
	e.endpointOps = &endpointOps{
		rows:       rowMap[uint32, bpf.Endpoint]{"endpoints", e.objects.Endpoints},
		gen:        e.gen,
		table:      d.tables.Endpoints,
		mtu:        func() int { return d.cfg.deviceMTU(e.keeper.underlay()) },
		removeSlot: e.removeStale,
		devices:    func() ([]uint16, error) { return endpointSlots(e.host) },
	}
	e.endpointRec = state.NewReconciler(e.reconcilerConfig("endpoints"), d.tables.Endpoints, state.Ops[uint16, LocalEndpoint](e.endpointOps), d.log)
	e.ipcacheRec = state.NewReconciler(e.reconcilerConfig("ipcache"), d.ipcache, state.Ops[netip.Prefix, IPCacheEntry](e.ipcacheOps), d.log)
	e.serviceRec = state.NewReconciler(e.reconcilerConfig("services"), d.tables.Frontends, state.Ops[service.Frontend, service.Service](e.services), d.log)
	return e.openSockets()
}

// openSockets reads which namespaces the programs at sockets serve, and makes what writes them.
func (e *engine) openSockets() error {
	if e.sockets.objects == nil {
		return nil
	}
	endpoints := e.d.cfg.SocketLB == SocketLBAll
	ops, err := openNamespaces(e.sockets.objects, e.host, endpoints)
	if err != nil {
		return err
	}
	if endpoints {
		e.namespaceRec = state.NewReconciler(e.reconcilerConfig("namespaces"), e.d.tables.Endpoints, state.Ops[uint16, LocalEndpoint](ops), e.d.log)
	}
	return nil
}

// reconcilerConfig of a map. Nobody else writes our maps, so there is no refresh.
func (e *engine) reconcilerConfig(name string) state.ReconcilerConfig {
	return state.ReconcilerConfig{Name: name, BatchSize: 4096, MinBackoff: 100 * time.Millisecond, MaxBackoff: 10 * time.Second}
}

// Close lets go of everything and changes nothing.
func (e *engine) Close() {
	e.sockets.Close()
	if e.objects != nil {
		e.objects.Close()
	}
	if e.host != nil {
		e.host.Close()
	}
}

// pathMTU is the largest packet that the route to a node takes, in bytes, with what the kernel has
// learnt of the path; 0 if there is no route.
func (h *host) pathMTU(to netip.Addr) int {
	routes, err := h.nl.RouteGet(to.AsSlice())
	if err != nil || len(routes) == 0 {
		return 0
	}
	if routes[0].MTU != 0 {
		return routes[0].MTU
	}
	link, err := h.linkAt(routes[0].LinkIndex)
	if err != nil || link == nil {
		return 0
	}
	return link.Attrs().MTU
}

// reconcilers are the states of what writes maps.
func (e *engine) reconcilers() []state.ReconcilerStatus {
	all := []state.ReconcilerStatus{e.endpointRec.Status(), e.ipcacheRec.Status(), e.serviceRec.Status()}
	if e.namespaceRec != nil {
		all = append(all, e.namespaceRec.Status())
	}
	return all
}
