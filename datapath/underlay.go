// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// underlay is the device that leads to other nodes, as the kernel has it.
type underlay struct {
	name  string
	index int
	mtu   int            // bytes
	addrs []netip.Prefix // with the length of their network
}

// findUnderlay looks for the configured device, or for the one that has the node's first address.
func findUnderlay(h *host, cfg Config) (underlay, error) {
	addrs, err := h.nl.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return underlay{}, fmt.Errorf("list addresses: %w", err)
	}
	byLink := map[int][]netip.Prefix{}
	holder := 0
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		ip = ip.Unmap()
		byLink[a.LinkIndex] = append(byLink[a.LinkIndex], prefixOf(a.IPNet, ip.Is6()))
		if ip == cfg.NodeIPs[0] && a.Label != hostDevice {
			holder = a.LinkIndex
		}
	}
	var link netlink.Link
	if cfg.Underlay != "" {
		link, err = h.link(cfg.Underlay)
	} else if holder != 0 {
		link, err = h.linkAt(holder)
	}
	if err != nil {
		return underlay{}, err
	}
	if link == nil {
		if cfg.Underlay != "" {
			return underlay{}, fmt.Errorf("underlay device %s: not there", cfg.Underlay)
		}
		return underlay{}, fmt.Errorf("underlay: no device has the node's address %s", cfg.NodeIPs[0])
	}
	a := link.Attrs()
	found := byLink[a.Index]
	slices.SortFunc(found, netip.Prefix.Compare)
	return underlay{name: a.Name, index: a.Index, mtu: a.MTU, addrs: found}, nil
}

// equal compares what the rest depends on.
func (u underlay) equal(o underlay) bool {
	return u.name == o.name && u.index == o.index && u.mtu == o.mtu && slices.Equal(u.addrs, o.addrs)
}

// onLink says whether a is a neighbour: in a network of the device.
func (u underlay) onLink(a netip.Addr) bool {
	return slices.ContainsFunc(u.addrs, func(p netip.Prefix) bool {
		return !p.IsSingleIP() && p.Contains(a)
	})
}

// deviceMTU is the MTU of endpoint devices.
func (c Config) deviceMTU(u underlay) int {
	if c.MTU != 0 {
		return c.MTU
	}
	return u.mtu
}

// pathMTU is the MTU of an endpoint's default route: the largest packet that reaches a neighbour
// node whole.
func (c Config) pathMTU(u underlay) int {
	return min(c.deviceMTU(u), u.mtu) - c.overhead()
}
