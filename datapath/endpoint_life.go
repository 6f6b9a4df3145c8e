// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/state"
)

// endpointLocks makes work on one slot one after the other, and remembers what this run made.
type endpointLocks struct {
	mu    sync.Mutex
	made  map[uint16]bool // slots added by this run: no leftovers, whatever the table says yet
	mtu   map[uint16]int  // path MTU of default routes, as this run has set it
	slots map[uint16]*sync.Mutex
}

// lock locks a slot.
func (l *endpointLocks) lock(slot uint16) *sync.Mutex {
	l.mu.Lock()
	if l.slots == nil {
		l.slots, l.made, l.mtu = map[uint16]*sync.Mutex{}, map[uint16]bool{}, map[uint16]int{}
	}
	m := l.slots[slot]
	if m == nil {
		m = new(sync.Mutex)
		l.slots[slot] = m
	}
	l.mu.Unlock()
	m.Lock()
	return m
}

func (l *endpointLocks) setMade(slot uint16, made bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if made {
		l.made[slot] = true
	} else {
		delete(l.made, slot)
		delete(l.mtu, slot)
	}
}

func (l *endpointLocks) setPathMTU(slot uint16, mtu int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mtu[slot] = mtu
}

func (l *endpointLocks) pathMTU(slot uint16) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mtu[slot]
}

func (l *endpointLocks) isMade(slot uint16) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.made[slot]
}

// AddEndpoint makes the devices of an endpoint, or finds them, with addresses, routes, neighbours
// and programs. Until the endpoint has a row with an identity in Tables.Endpoints, it can neither
// send nor receive. A failure leaves nothing behind.
//
// Errors are a NameClashError, or name the step.
func (d *Datapath) AddEndpoint(ctx context.Context, spec EndpointSpec) (EndpointDevice, error) {
	e, done, err := d.await(ctx)
	if err != nil {
		return EndpointDevice{}, err
	}
	defer done()
	v, err := d.vethOf(spec, e.keeper.underlay())
	if err != nil {
		return EndpointDevice{}, fmt.Errorf("add endpoint %s: %w", spec.Name, err)
	}
	lock := e.endpoints.lock(spec.Slot)
	defer lock.Unlock()
	if err := e.addEndpoint(v, spec.NetNSPath); err != nil {
		return EndpointDevice{}, fmt.Errorf("add endpoint %s: %w", spec.Name, err)
	}
	return EndpointDevice{
		IfName:  v.host,
		IfIndex: v.index(),
		MAC:     [6]byte(endpointMAC(v.slot)),
		MTU:     v.mtu,
		PathMTU: v.pathMTU,
	}, nil
}

// vethOf checks a spec.
func (d *Datapath) vethOf(spec EndpointSpec, u underlay) (veth, error) {
	switch {
	case spec.Slot == 0 || uint32(spec.Slot) >= d.cfg.MaxEndpoints:
		return veth{}, fmt.Errorf("slot %d: not in 1 to %d", spec.Slot, d.cfg.MaxEndpoints-1)
	case !spec.IPv4.IsValid() && !spec.IPv6.IsValid():
		return veth{}, errors.New("no address")
	case spec.IPv4.IsValid() && !spec.IPv4.Is4():
		return veth{}, fmt.Errorf("%s is not an IPv4 address", spec.IPv4)
	case spec.IPv6.IsValid() && (!spec.IPv6.Is6() || spec.IPv6.Is4In6() || spec.IPv6.Zone() != ""):
		return veth{}, fmt.Errorf("%s is not an IPv6 address", spec.IPv6)
	}
	v := veth{
		slot:    spec.Slot,
		host:    EndpointDeviceName(spec.Slot, spec.Name),
		inside:  spec.Inside,
		ipv4:    spec.IPv4,
		ipv6:    spec.IPv6,
		mtu:     d.cfg.deviceMTU(u),
		pathMTU: d.cfg.pathMTU(u),
	}
	if v.inside == "" {
		v.inside = insideName
	}
	return v, nil
}

func (e *engine) addEndpoint(v veth, netNSPath string) (err error) {
	pod, err := openHost(netNSPath)
	if err != nil {
		return err
	}
	defer pod.Close()
	e.endpoints.setMade(v.slot, true)
	made, err := v.create(e.host, pod)
	defer func() {
		if err == nil {
			return
		}
		e.endpoints.setMade(v.slot, false)
		if made {
			err = errors.Join(err, e.removeDevice(v.slot))
		}
	}()
	if err != nil {
		return err
	}
	for _, h := range endpointHooks() {
		if err := e.attacher.attach(v.index(), h); err != nil {
			return err
		}
	}
	e.endpoints.setPathMTU(v.slot, v.pathMTU)
	return v.setUp(e.host, pod, e.d.cfg.sources())
}

// sources are the node's addresses as endpoints see them, here and elsewhere: those that it has in the
// underlay, so that a server on the node which answers from the address of the route answers from
// the one it was asked at.
func (c Config) sources() []netip.Addr { return c.NodeIPs }

// DeleteEndpoint removes an endpoint so that its slot and its addresses can be given to another at
// once: no packet, flow entry, identity or route of it is left. The caller deletes the row of
// Tables.Endpoints first. An endpoint that is not there is no error; after a failure it is called
// again.
func (d *Datapath) DeleteEndpoint(ctx context.Context, slot uint16) error {
	e, done, err := d.await(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := e.removeEndpoint(slot); err != nil {
		return fmt.Errorf("delete endpoint in slot %d: %w", slot, err)
	}
	return nil
}

// removeStale is removeEndpoint for what nobody wants; what this run made is somebody's.
func (e *engine) removeStale(_ context.Context, slot uint16) error {
	if e.endpoints.isMade(slot) {
		return nil
	}
	e.d.log.Info("removing an endpoint that is left over", "slot", slot)
	return e.removeEndpoint(slot)
}

func (e *engine) removeEndpoint(slot uint16) error {
	lock := e.endpoints.lock(slot)
	defer lock.Unlock()
	// The device goes down before its programs go: without them its packets would meet the stack.
	link, err := e.host.endpointDevice(slot)
	if err != nil {
		return err
	}
	if link != nil {
		if err := e.host.nl.LinkSetDown(link); err != nil {
			return fmt.Errorf("set %s down: %w", link.Attrs().Name, err)
		}
	}
	addrs, err := e.forgetEndpoint(slot)
	if err != nil {
		return err
	}
	// Programs that found the row before it went may still create entries.
	awaitPrograms()
	if err := e.flows.removeEndpoint(slot, addrs); err != nil {
		return err
	}
	if err := e.gen.Raise(); err != nil {
		return err
	}
	if err := e.removeDevice(slot); err != nil {
		return err
	}
	e.endpoints.setMade(slot, false)
	return nil
}

// forgetEndpoint removes an endpoint's rows and returns the addresses it had.
func (e *engine) forgetEndpoint(slot uint16) ([]netip.Addr, error) {
	var row bpf.Endpoint
	if err := e.objects.Endpoints.Lookup(uint32(slot), &row); err != nil {
		return nil, bpf.WriteError("endpoints", e.objects.Endpoints, err)
	}
	if err := e.endpointOps.clear(slot); err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, b := range [][16]byte{row.Ipv4, row.Ipv6} {
		if a := bpf.Addr(b); a.IsValid() {
			addrs = append(addrs, a)
		}
	}
	return addrs, e.ipcacheOps.removeSlot(slot, addrs)
}

// removeDevice removes an endpoint's device with its programs; routes and neighbours go with it.
func (e *engine) removeDevice(slot uint16) error {
	index := EndpointIfIndexBase + int(slot)
	link, err := e.host.endpointDevice(slot)
	if err != nil {
		return err
	}
	if link != nil {
		if err := e.host.nl.LinkDel(link); err != nil && !notFound(err) {
			return fmt.Errorf("delete device %s: %w", link.Attrs().Name, err)
		}
	}
	for _, h := range endpointHooks() {
		if err := e.attacher.detach(index, h); err != nil {
			return err
		}
	}
	return nil
}

// endpointDevice is the device of a slot, nil if there is none. Anybody may make a device with an
// index of ours: that one is left alone.
func (h *host) endpointDevice(slot uint16) (netlink.Link, error) {
	link, err := h.linkAt(EndpointIfIndexBase + int(slot))
	if err != nil || link == nil || !isEndpointDevice(link) {
		return nil, err
	}
	return link, nil
}

// isEndpointDevice says whether a device was made for an endpoint.
func isEndpointDevice(l netlink.Link) bool {
	_, inRange := slotOf(l.Attrs().Index)
	return inRange && l.Type() == "veth" && strings.HasPrefix(l.Attrs().Name, "lxc")
}

// endpointSlots lists the slots that have a device of weft.
func endpointSlots(h *host) ([]uint16, error) {
	links, err := h.nl.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var slots []uint16
	for _, l := range links {
		if slot, _ := slotOf(l.Attrs().Index); isEndpointDevice(l) {
			slots = append(slots, slot)
		}
	}
	return slots, nil
}

// takeOverEndpoints puts the programs of this run in force on the devices of an earlier one, and
// lets go of links whose device is gone.
func (e *engine) takeOverEndpoints() error {
	slots, err := endpointSlots(e.host)
	if err != nil {
		return err
	}
	for _, slot := range slots {
		for _, h := range endpointHooks() {
			if err := e.attacher.attach(EndpointIfIndexBase+int(slot), h); err != nil {
				return err
			}
		}
	}
	return e.attacher.detachGone()
}

// WaitEndpoint returns when the row of an endpoint, as it is in the table now or newer, is in the
// kernel with its addresses. What becomes of other rows does not matter: those of another cluster may
// fail for as long as they like. It returns the last error of writing it if ctx ends before, and
// says so if Run ends before.
func (d *Datapath) WaitEndpoint(ctx context.Context, slot uint16) error {
	e, done, err := d.await(ctx)
	if err != nil {
		return err
	}
	done() // outcomes are in memory, and the wait may be long
	row, ok := d.tables.Endpoints.Get(slot)
	if !ok {
		return fmt.Errorf("endpoint in slot %d: no such row", slot)
	}
	err = awaitOutcome(ctx, e.ended, func() (state.Outcome, bool) {
		o, ok := e.endpointRec.Outcome(slot)
		return o, ok && o.Revision >= row.Revision
	})
	if err != nil {
		return fmt.Errorf("endpoint %s: %w", row.Value.Name, err)
	}
	for p, want := range endpointRows(d.cfg, row.Value) {
		err := awaitOutcome(ctx, e.ended, func() (state.Outcome, bool) {
			// The derivation may not have come to it yet, and what was there before is not it.
			entry, ok := d.ipcache.Get(p)
			if !ok || entry.Value.Slot != want.Slot || entry.Value.Identity != want.Identity {
				return state.Outcome{}, false
			}
			o, ok := e.ipcacheRec.Outcome(p)
			return o, ok && o.Revision >= entry.Revision
		})
		if err != nil {
			return fmt.Errorf("endpoint %s: ipcache row of %s: %w", row.Value.Name, p, err)
		}
	}
	return nil
}

// awaitOutcome returns when the outcome of the row that is meant is a success; ok says that get has
// found that row. It asks again and again: a cursor would begin with every row of the mesh.
func awaitOutcome(ctx context.Context, ended <-chan struct{}, get func() (_ state.Outcome, ok bool)) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		o, ok := get()
		if ok && o.Done {
			return nil
		}
		select {
		case <-tick.C:
		case <-ended:
			return errStopped
		case <-ctx.Done():
			if ok && o.Err != nil {
				return o.Err
			}
			return ctx.Err()
		}
	}
}
