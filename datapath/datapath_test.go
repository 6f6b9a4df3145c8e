// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"testing"

	"github.com/weft-net/weft/internal/netns"
)

// testLonely is a node with an underlay that leads to a wire without anybody.
func testLonely(t *testing.T, name string, mode Mode) *testNode {
	t.Helper()
	ns, wire := testNS(t, name), testNS(t, name+"-wire")
	if err := netns.Veth(ns, "eth0", wire, "far", 1500); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"192.0.2.1/24", "fd00:ffff::1/64"} {
		if err := ns.AddAddr("eth0", netip.MustParsePrefix(a)); err != nil {
			t.Fatal(err)
		}
	}
	cfg := testConfig(name)
	cfg.NetNS, cfg.BPFRoot, cfg.Mode = ns.Path(), testBPFRoot(t), mode
	cfg.NodeIPs = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fd00:ffff::1")}
	cfg.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24"), netip.MustParsePrefix("fd00:1::/64")}
	n := &testNode{t: t, name: name, ns: ns, cfg: cfg, tables: testTables()}
	markSynced(n.tables)
	return n
}

func TestDatapath_StartStopRestart(t *testing.T) {
	for _, mode := range []Mode{ModeNative, ModeVXLAN} {
		t.Run(mode.String(), func(t *testing.T) {
			n := testLonely(t, "start", mode)
			n.start()
			ep := n.addEndpoint(7, "10.0.1.7", "fd00:1::7", 1000)
			mustRun(t, n.ns, "ping", "-c1", "-W2", "10.0.1.7")
			n.restart()
			mustRun(t, n.ns, "ping", "-c1", "-W2", "10.0.1.7")
			mustRun(t, n.ns, "ping", "-c1", "-W2", "fd00:1::7")
			n.deleteEndpoint(ep)
			if _, err := n.ns.Link(ep.IfName); err == nil {
				t.Error("the endpoint's device is still there")
			}
		})
	}
}
