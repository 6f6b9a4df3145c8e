// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink/nl"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/state"
)

// keeper keeps what is not a map: devices, addresses, routes, sysctls and attachments. It compares
// all of it after every announcement of the kernel, after changes of tables, and now and then.
type keeper struct {
	e    *engine
	kick chan struct{} // holds one request to compare

	mu     sync.Mutex
	now    underlay
	report report

	applied map[netip.Prefix]route // routes of the last comparison; only compare uses it
}

// report is what the last comparison found, for status.
type report struct {
	at          time.Time
	err         error
	corrections []correction // settings that somebody else had changed, newest last
	restored    int          // routes put back since start
	restoredAt  time.Time    // the last time
	refused     []string     // pod CIDRs that get no route, and why
	forward     []string     // firewall chains that drop what is forwarded
	forwardErr  error
	missing     []string // endpoints whose device is gone
}

func newKeeper(e *engine) *keeper {
	return &keeper{e: e, kick: make(chan struct{}, 1)}
}

// underlay is the device as it was last found.
func (k *keeper) underlay() underlay {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

func (k *keeper) last() report {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.report
	r.corrections, r.refused = slices.Clone(r.corrections), slices.Clone(r.refused)
	r.forward, r.missing = slices.Clone(r.forward), slices.Clone(r.missing)
	return r
}

// Kick asks for a comparison. It does not block.
func (k *keeper) Kick() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// Comparisons are at least this far apart, for bursts of announcements.
const keepEvery = 50 * time.Millisecond

// Run compares until ctx ends. Failures are no end: they stand in the status, and are tried again.
func (k *keeper) Run(ctx context.Context) error {
	refresh := time.NewTicker(k.e.d.cfg.RefreshInterval)
	defer refresh.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.kick:
		case <-refresh.C:
		}
		if err := k.ensure(); (err != nil) != failing {
			failing = !failing
			if failing {
				k.e.d.log.Warn("devices or routes are not as they should be", "error", err)
			} else {
				k.e.d.log.Info("devices and routes are as they should be")
			}
		}
		pause := time.NewTimer(keepEvery)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil
		}
	}
}

// ensure makes everything right that can be and returns what is not.
func (k *keeper) ensure() error {
	r := k.last()
	r.at, r.refused, r.missing = time.Now(), nil, nil
	err := k.compare(&r)
	r.err = err
	r.forward, r.forwardErr = forwardDrops(k.e.host)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.report = r
	return err
}

func (k *keeper) compare(r *report) error {
	e, cfg := k.e, k.e.d.cfg
	u, err := findUnderlay(e.host, cfg)
	if err != nil {
		return err
	}
	if u.mtu-cfg.overhead() < minMTU {
		return fmt.Errorf("underlay %s: MTU %d is too small, want at least %d", u.name, u.mtu, minMTU+cfg.overhead())
	}
	corrections, err := forwarding(e.host, cfg, u)
	first := k.setUnderlay(u)
	if !first { // at the first comparison everything was somebody else's
		r.corrections = lastOf(append(r.corrections, corrections...), 10)
	}
	if err != nil {
		return fmt.Errorf("sysctl: %w", err)
	}
	dev, err := ensureHostDevices(e.host, cfg, u)
	if err != nil {
		return err
	}
	return errors.Join(k.attachAll(u, dev), k.ensureEndpoints(r, u), k.ensureRoutes(r, u, dev, first))
}

// setUnderlay notes the device and says whether it is the first one of this run.
func (k *keeper) setUnderlay(u underlay) (first bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	first = k.now.index == 0
	k.now = u
	return first
}

// lastOf is the end of a list.
func lastOf[T any](list []T, n int) []T { return list[max(0, len(list)-n):] }

// attachAll attaches the programs of the node's devices where they are missing, and lets go of the
// programs on devices that are not the underlay any more.
func (k *keeper) attachAll(u underlay, dev hostDevices) error {
	type place struct {
		ifindex int
		hook    hook
	}
	places := []place{{u.index, hookFromNetdev()}, {dev.hostIndex, hookFromHost()}}
	if dev.vxlanIndex != 0 {
		places = append(places, place{dev.vxlanIndex, hookFromOverlay()})
	}
	for _, p := range places {
		if err := k.attachOnce(p.ifindex, p.hook); err != nil {
			return err
		}
	}
	return k.e.attacher.eachLink(func(ifindex int, program string, on int) bool {
		if on != ifindex {
			return false
		}
		if _, isEndpoint := slotOf(ifindex); isEndpoint {
			return true
		}
		return slices.ContainsFunc(places, func(p place) bool { return p.ifindex == ifindex && p.hook.program == program })
	})
}

// attachOnce attaches the program of this run if it is not in force: the first time, an older one's
// link is updated.
func (k *keeper) attachOnce(ifindex int, h hook) error {
	if k.e.attacher.current(ifindex, h) {
		return nil
	}
	return k.e.attacher.attach(ifindex, h)
}

// slotOf is the slot whose device has an interface index.
func slotOf(ifindex int) (uint16, bool) {
	n := ifindex - EndpointIfIndexBase
	return uint16(n), n >= 1 && n <= maxSlot
}

// watchTables asks for a comparison when rows change that routes depend on.
func (k *keeper) watchTables(ctx context.Context) error {
	t := k.e.d.tables
	nodes, clusters, endpoints := t.Nodes.Cursor(), t.Clusters.Cursor(), t.Endpoints.Cursor()
	defer nodes.Close()
	defer clusters.Close()
	defer endpoints.Close()
	return state.Derive(ctx, nil, "", func() error {
		nodes.Next(deriveBatch)
		clusters.Next(deriveBatch)
		endpoints.Next(deriveBatch)
		k.Kick()
		return nil
	}, nodes, clusters, endpoints)
}

// listenFor is how long one read of the netlink socket waits, and so how late it notices the end.
const listenFor = 200 * time.Millisecond

// watchKernel asks for a comparison when the kernel announces a change of links, addresses, routes or
// rules, whoever made it.
func (k *keeper) watchKernel(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := k.listen(ctx); err != nil {
			return err
		}
	}
	return nil
}

// listen reads announcements until ctx ends or the kernel had to drop some.
func (k *keeper) listen(ctx context.Context) error {
	s, err := nl.SubscribeAt(vnetns.NsHandle(k.e.host.ns.Fd()), vnetns.None(), unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		return fmt.Errorf("subscribe to netlink: %w", err)
	}
	defer s.Close()
	timeout := unix.NsecToTimeval(int64(listenFor))
	if err := s.SetReceiveTimeout(&timeout); err != nil {
		return fmt.Errorf("subscribe to netlink: %w", err)
	}
	k.Kick() // for what changed before
	for ctx.Err() == nil {
		messages, _, err := s.Receive()
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS):
			return nil
		case err != nil:
			return fmt.Errorf("read netlink: %w", err)
		}
		k.Kick()
		for _, m := range messages {
			switch m.Header.Type {
			case unix.RTM_NEWROUTE, unix.RTM_DELROUTE, unix.RTM_NEWLINK:
				k.e.kickPaths()
			}
		}
	}
	return nil
}

// ensureEndpoints compares the devices of endpoints that the table has.
func (k *keeper) ensureEndpoints(r *report, u underlay) error {
	var errs []error
	changed := false
	for row := range k.e.d.tables.Endpoints.All() {
		ep := row.Value
		spec := EndpointSpec{Slot: ep.Slot, Name: ep.Name, IPv4: ep.IPv4, IPv6: ep.IPv6}
		v, err := k.e.d.vethOf(spec, u)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if ep.IfName != "" {
			v.host = ep.IfName
		}
		there, mtu, err := k.ensureEndpoint(v, ep.NetNSPath)
		if err != nil {
			errs = append(errs, fmt.Errorf("endpoint %s: %w", ep.Name, err))
		}
		if !there {
			r.missing = append(r.missing, ep.Name)
		}
		changed = changed || mtu
	}
	if changed {
		errs = append(errs, k.e.endpointOps.rewrite())
	}
	return errors.Join(errs...)
}

// ensureEndpoint repairs one device. It says whether there is one and whether its MTU changed.
func (k *keeper) ensureEndpoint(v veth, netNSPath string) (there, mtu bool, err error) {
	lock := k.e.endpoints.lock(v.slot)
	defer lock.Unlock()
	if _, ok := k.e.d.tables.Endpoints.Get(v.slot); !ok {
		return true, false, nil // being deleted
	}
	link, err := v.find(k.e.host)
	if err != nil || link == nil {
		return false, false, err
	}
	for _, h := range endpointHooks() {
		if err := k.attachOnce(v.index(), h); err != nil {
			return true, false, err
		}
	}
	if link.Attrs().MTU == v.mtu && k.e.endpoints.pathMTU(v.slot) == v.pathMTU {
		return true, false, nil
	}
	if err := v.setMTU(k.e.host, link, netNSPath); err != nil {
		return true, false, err
	}
	k.e.endpoints.setPathMTU(v.slot, v.pathMTU)
	return true, true, nil
}
