// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import "net/netip"

// Place lays wanted backends out in slots so that as few as possible of the slots that stand
// change: a backend keeps its slot, one that is new takes a hole, and where there are fewer than
// before the last ones fill the holes. The result has the length and the members of want. What a
// restarted agent finds is therefore right as it is while the set is the same, in whatever order
// its history left it.
func Place(have []netip.AddrPort, want []Backend) []Backend {
	slots := make([]Backend, len(want))
	taken := make([]bool, len(want))
	at := make(map[netip.AddrPort]int, len(have))
	for i, a := range have {
		if _, twice := at[a]; !twice {
			at[a] = i
		}
	}
	var rest []Backend
	for _, b := range want {
		if i, ok := at[b.Addr]; ok && i < len(slots) && !taken[i] {
			slots[i], taken[i] = b, true
			continue
		}
		rest = append(rest, b)
	}
	for i := range slots {
		if !taken[i] {
			slots[i], rest = rest[0], rest[1:]
		}
	}
	return slots
}
