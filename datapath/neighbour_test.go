// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestNeighbour_StaysValid lets a neighbour entry of the underlay grow old within a second while
// packets pass that the node's stack never sees: the entry is confirmed again and again, and no
// packet is lost.
func TestNeighbour_StaysValid(t *testing.T) {
	a, b := testPair(t, ModeVXLAN)
	a1 := a.addEndpoint(11, "10.0.1.11", "", 1011)
	b1 := b.addEndpoint(21, "10.0.2.21", "", 1021)
	a.knows(b, b1)
	b.knows(a, a1)
	waitIPCache(t, a, hostPrefix(b1.IPv4))
	waitIPCache(t, b, hostPrefix(a1.IPv4))
	for _, n := range []*testNode{a, b} {
		for name, value := range map[string]string{
			"base_reachable_time_ms": "500", "delay_first_probe_time": "1", "retrans_time_ms": "100", "gc_stale_time": "1",
		} {
			set(t, n.ns, "net/ipv4/neigh/eth0/"+name, value)
		}
	}
	echo(t, b1.ns, 7)
	conn := dial(t, a1.ns, netip.AddrPortFrom(b1.IPv4, 7))
	states := map[string]int{}
	const enough = 6 * time.Second // several times through reachable, stale, delay and probe
	for begin := time.Now(); time.Since(begin) < enough; {
		if err := exchange(conn, 100); err != nil {
			t.Fatal(err)
		}
		out := mustRun(t, a.ns, "ip", "-4", "neigh", "show", "192.0.2.2")
		words := strings.Fields(out)
		if len(words) == 0 {
			t.Fatal("the neighbour entry is gone")
		}
		states[words[len(words)-1]]++
		<-time.After(20 * time.Millisecond) // the pace of the packets, no wait for a condition
	}
	if states["REACHABLE"] == 0 || states["FAILED"] > 0 || states["INCOMPLETE"] > 0 {
		t.Errorf("states seen: %v", states)
	}
	if n := a.drops() + b.drops(); n != 0 {
		t.Errorf("%d packets were dropped", n)
	}
}
