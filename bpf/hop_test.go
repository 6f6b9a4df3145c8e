// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"testing"
)

// TestHops_Shared: a second connection to a destination asks for no route, and a third one after
// the second is over does.
func TestHops_Shared(t *testing.T) {
	for _, m := range modes() {
		t.Run(m.name, func(t *testing.T) {
			eachFamily(t, func(t *testing.T, a addresses) {
				r := newRig(t, small(), m)
				open := func(port uint16) Flow {
					from, to := netip.AddrPortFrom(a.pod, port), netip.AddrPortFrom(a.other, 80)
					script(t, r, []step{{at: fromPod, in: tcp(from, to, syn), verdict: redirect}})
					var f Flow
					must(t, r.Flows.Lookup(NewFlowKey(from, to, protoTCP, 1), &f))
					return f
				}
				first, second := open(1000), open(1001)
				if first.RouteUntil != second.RouteUntil || first.Mac != second.Mac || first.Mtu != second.Mtu || first.Ifindex != second.Ifindex {
					t.Errorf("the second connection has a route of its own:\n%+v\n%+v", first, second)
				}
				var key AddressKey
				var hop Hop
				it := r.Hops.Iterate()
				for it.Next(&key, &hop) {
					hop.Until -= 10000
					r.put(r.Hops, key, hop)
				}
				if third := open(1002); third.RouteUntil == first.RouteUntil-10000 || third.Mac != first.Mac {
					t.Errorf("the third connection has an old route:\n%+v", third)
				}
			})
		})
	}
}
