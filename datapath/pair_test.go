// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/weft-net/weft/internal/netns"
)

// testPair is two nodes on one wire.
func testPair(t *testing.T, mode Mode) (a, b *testNode) {
	t.Helper()
	nsA, nsB := testNS(t, "a"), testNS(t, "b")
	if err := netns.Veth(nsA, "eth0", nsB, "eth0", 1500); err != nil {
		t.Fatal(err)
	}
	root := testBPFRoot(t)
	nodes := make([]*testNode, 2)
	for i, ns := range []*netns.NS{nsA, nsB} {
		v4, v6 := fmt.Sprintf("192.0.2.%d", i+1), fmt.Sprintf("fd00:ffff::%d", i+1)
		if err := ns.AddAddr("eth0", netip.MustParsePrefix(v4+"/24")); err != nil {
			t.Fatal(err)
		}
		if err := ns.AddAddr("eth0", netip.MustParsePrefix(v6+"/64")); err != nil {
			t.Fatal(err)
		}
		cfg := testConfig(string(rune('a' + i)))
		cfg.NetNS, cfg.BPFRoot, cfg.Mode = ns.Path(), root, mode
		cfg.NodeIPs = []netip.Addr{netip.MustParseAddr(v4), netip.MustParseAddr(v6)}
		cfg.PodCIDRs = []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/24", i+1)),
			netip.MustParsePrefix(fmt.Sprintf("fd00:%d::/64", i+1)),
		}
		cfg.InsideIPs = []netip.Addr{cfg.PodCIDRs[0].Addr().Next(), cfg.PodCIDRs[1].Addr().Next()}
		nodes[i] = &testNode{t: t, name: cfg.NodeName, ns: ns, cfg: cfg, tables: testTables()}
		markSynced(nodes[i].tables)
		nodes[i].start()
	}
	return nodes[0], nodes[1]
}

func TestPair_Reach(t *testing.T) {
	for _, mode := range []Mode{ModeNative, ModeVXLAN} {
		t.Run(mode.String(), func(t *testing.T) {
			a, b := testPair(t, mode)
			a1 := a.addEndpoint(11, "10.0.1.11", "fd00:1::11", 1011)
			a2 := a.addEndpoint(12, "10.0.1.12", "fd00:1::12", 1012)
			b1 := b.addEndpoint(21, "10.0.2.21", "fd00:2::21", 1021)
			a.knows(b, b1)
			b.knows(a, a1, a2)
			for _, ns := range []*netns.NS{a1.ns, a2.ns, b1.ns, a.ns, b.ns} {
				echo(t, ns, 7)
			}
			for _, p := range []netip.Addr{b1.IPv4, b1.IPv6} {
				waitIPCache(t, a, hostPrefix(p))
			}
			for _, p := range []netip.Addr{a1.IPv4, a1.IPv6} {
				waitIPCache(t, b, hostPrefix(p))
			}
			t.Run("same-node", func(t *testing.T) {
				matrix(t, a1.ns, a2.IPv4, 7)
				matrix(t, a1.ns, a2.IPv6, 7)
			})
			t.Run("across-nodes", func(t *testing.T) {
				matrix(t, a1.ns, b1.IPv4, 7)
				matrix(t, a1.ns, b1.IPv6, 7)
				matrix(t, b1.ns, a2.IPv4, 7)
			})
			t.Run("node-to-own-endpoint", func(t *testing.T) {
				matrix(t, a.ns, a1.IPv4, 7)
				matrix(t, a.ns, a1.IPv6, 7)
			})
			t.Run("node-to-remote-endpoint", func(t *testing.T) {
				waitRoute(t, a, b.cfg.PodCIDRs[0])
				waitRoute(t, a, b.cfg.PodCIDRs[1])
				matrix(t, a.ns, b1.IPv4, 7)
				matrix(t, a.ns, b1.IPv6, 7)
			})
			t.Run("endpoint-to-own-node", func(t *testing.T) {
				for _, ip := range a.cfg.NodeIPs {
					matrix(t, a1.ns, ip, 7)
				}
				for _, ip := range a.cfg.InsideIPs {
					if err := ask(a1.ns, "tcp", netip.AddrPortFrom(ip, 7), 1000); err != nil {
						t.Errorf("inside address %s: %v", ip, err)
					}
				}
			})
			t.Run("endpoint-to-remote-node", func(t *testing.T) {
				for _, ip := range b.cfg.NodeIPs {
					matrix(t, a1.ns, ip, 7)
				}
			})
		})
	}
}

// waitIPCache waits until a prefix is in a node's kernel.
func waitIPCache(t *testing.T, n *testNode, p netip.Prefix) {
	t.Helper()
	eventually(t, func() error {
		o, ok := n.d.IPCacheOutcome(p)
		if !ok || !o.Done {
			return fmt.Errorf("%s: ipcache row of %s: %+v", n.name, p, o)
		}
		return nil
	})
}

// waitRoute waits until a node's stack has a route of weft to a pod CIDR.
func waitRoute(t *testing.T, n *testNode, p netip.Prefix) {
	t.Helper()
	h := testHost(t, n.ns)
	eventually(t, func() error {
		routes, err := ownRoutes(h)
		if err != nil {
			return err
		}
		if _, ok := routes[p]; !ok {
			return fmt.Errorf("%s: no route to %s in %v", n.name, p, routes)
		}
		return nil
	})
}
