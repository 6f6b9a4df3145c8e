// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// route is a route of weft in the node's main table. It can be compared.
type route struct {
	dst  netip.Prefix
	link int        // interface index
	via  netip.Addr // zero: dst is on the link
	src  netip.Addr // preferred source, zero: the kernel chooses
	mtu  int        // largest packet in bytes, 0: the device's

	// unreachable refuses instead of leading somewhere: what of our own pod CIDR no endpoint has
	// must not leave by the default route and come back.
	unreachable bool
}

// kernel is the route as netlink wants it.
func (r route) kernel() *netlink.Route {
	k := &netlink.Route{
		LinkIndex: r.link,
		Dst:       ipNet(r.dst),
		MTU:       r.mtu,
		Protocol:  RouteProtocol,
		Table:     unix.RT_TABLE_MAIN,
	}
	switch {
	case r.unreachable:
		k.Type = unix.RTN_UNREACHABLE
	case r.via.IsValid():
		k.Gw = r.via.AsSlice()
	default:
		k.Scope = netlink.SCOPE_LINK
	}
	if r.src.IsValid() {
		k.Src = r.src.AsSlice()
	}
	return k
}

// put adds the route or replaces the one to the same destination.
func (r route) put(h *host) error {
	if err := h.nl.RouteReplace(r.kernel()); err != nil {
		return fmt.Errorf("route to %s: %w", r.dst, err)
	}
	return nil
}

// remove deletes the route.
func (r route) remove(h *host) error {
	if err := h.nl.RouteDel(r.kernel()); err != nil {
		return fmt.Errorf("delete route to %s: %w", r.dst, err)
	}
	return nil
}

// ownRoutes lists the routes of weft that a namespace has, by destination.
func ownRoutes(h *host) (map[netip.Prefix]route, error) {
	found := map[netip.Prefix]route{}
	filter := &netlink.Route{Protocol: RouteProtocol, Table: unix.RT_TABLE_MAIN}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := h.nl.RouteListFiltered(family, filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, k := range routes {
			r := route{
				dst:  prefixOf(k.Dst, family == netlink.FAMILY_V6),
				link: k.LinkIndex,
				mtu:  k.MTU,
			}
			if k.Type == unix.RTN_UNREACHABLE {
				// IPv6 says that they lead to lo.
				found[r.dst] = route{dst: r.dst, unreachable: true}
				continue
			}
			r.via, _ = netip.AddrFromSlice(k.Gw)
			r.src, _ = netip.AddrFromSlice(k.Src)
			r.via, r.src = r.via.Unmap(), r.src.Unmap()
			found[r.dst] = r
		}
	}
	return found, nil
}
