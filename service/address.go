// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"net/netip"
)

// NextAddress chooses a virtual address from a service CIDR: the first free one after the address
// `after`, which may be the zero Addr, going round once. The network's first address is never
// chosen, and of an IPv4 network neither is its last, unless the network is as small as one or two
// addresses. It is an error if none is free.
func NextAddress(cidr netip.Prefix, after netip.Addr, used func(netip.Addr) bool) (netip.Addr, error) {
	if !cidr.IsValid() {
		return netip.Addr{}, fmt.Errorf("address from %s: not a prefix", cidr)
	}
	cidr = cidr.Masked()
	first, last := cidr.Addr(), lastOf(cidr)
	if cidr.Addr().BitLen()-cidr.Bits() > 1 {
		first = first.Next()
		if last.Is4() {
			last = last.Prev()
		}
	}
	start := first
	if cidr.Contains(after) && after.Compare(first) >= 0 && after.Less(last) {
		start = after.Next()
	}
	// Used addresses are found in memory, and at most as many as there are services: the walk ends
	// long before a large network does.
	for a := start; ; {
		if !used(a) {
			return a, nil
		}
		if a == last {
			a = first
		} else {
			a = a.Next()
		}
		if a == start {
			return netip.Addr{}, fmt.Errorf("address from %s: all are in use: delete a service or add a service CIDR", cidr)
		}
	}
}

// lastOf is the last address of a masked prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
