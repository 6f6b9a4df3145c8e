// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/weft-net/weft/internal/netns"
)

// testNS makes a namespace that is gone after the test.
func testNS(t *testing.T, name string) *netns.NS {
	t.Helper()
	netns.RequireRoot(t)
	ns, err := netns.New(fmt.Sprintf("wdp%d-%s", os.Getpid()%100000, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Delete(); err != nil {
			t.Error(err)
		}
	})
	return ns
}

// testHost opens a namespace the way the datapath does.
func testHost(t *testing.T, ns *netns.NS) *host {
	t.Helper()
	h, err := openHost(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// run runs a command in a namespace and returns its output.
func run(t *testing.T, ns *netns.NS, argv ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	out, err := ns.Command(ctx, argv[0], argv[1:]...).CombinedOutput()
	return string(out), err
}

func mustRun(t *testing.T, ns *netns.NS, argv ...string) string {
	t.Helper()
	out, err := run(t, ns, argv...)
	if err != nil {
		t.Fatalf("%s in %s: %v\n%s", strings.Join(argv, " "), ns.Name(), err, out)
	}
	return out
}

func testVeth() veth {
	return veth{
		slot:    7,
		host:    EndpointDeviceName(7, "web"),
		inside:  insideName,
		ipv4:    netip.MustParseAddr("10.0.1.7"),
		ipv6:    netip.MustParseAddr("fd00:1::7"),
		mtu:     1500,
		pathMTU: 1450,
	}
}

func TestVeth_CreateAndUse(t *testing.T) {
	nodeNS, podNS := testNS(t, "node"), testNS(t, "pod")
	node, pod := testHost(t, nodeNS), testHost(t, podNS)
	if err := nodeNS.AddAddr("lo", netip.MustParsePrefix("192.0.2.1/32")); err != nil {
		t.Fatal(err)
	}
	if err := nodeNS.AddAddr("lo", netip.MustParsePrefix("fd00:ffff::1/128")); err != nil {
		t.Fatal(err)
	}
	v := testVeth()
	sources := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fd00:ffff::1")}

	for _, want := range []bool{true, false} { // the second time everything is there
		made, err := v.create(node, pod)
		if err != nil {
			t.Fatal(err)
		}
		if made != want {
			t.Errorf("create: made = %v, want %v", made, want)
		}
		if err := v.setUp(node, pod, sources); err != nil {
			t.Fatal(err)
		}
	}

	link, err := nodeNS.Link(v.host)
	if err != nil {
		t.Fatal(err)
	}
	if link.Index != EndpointIfIndexBase+7 || link.HardwareAddr.String() != hostMAC().String() || link.MTU != 1500 {
		t.Errorf("host device: index %#x, MAC %s, MTU %d", link.Index, link.HardwareAddr, link.MTU)
	}
	mustRun(t, nodeNS, "ping", "-c1", "-W2", "10.0.1.7")
	mustRun(t, nodeNS, "ping", "-c1", "-W2", "fd00:1::7")
	mustRun(t, podNS, "ping", "-c1", "-W2", "192.0.2.1")
	mustRun(t, podNS, "ping", "-c1", "-W2", "fd00:ffff::1")

	for cmd, want := range map[string][]string{
		"ip -4 route":     {"default via 169.254.1.1 dev eth0", "mtu 1450"},
		"ip -6 route":     {"default via fe80::1 dev eth0", "mtu 1450"},
		"ip -4 neighbour": {"169.254.1.1 dev eth0 lladdr 02:77:65:66:74:01 PERMANENT"},
		"ip -6 neighbour": {"fe80::1 dev eth0 lladdr 02:77:65:66:74:01 PERMANENT"},
		"ip -6 address":   {"inet6 fd00:1::7/128 scope global"},
	} {
		out := mustRun(t, podNS, strings.Fields(cmd)...)
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in\n%s", cmd, w, out)
			}
		}
		if strings.Contains(out, "tentative") {
			t.Errorf("%s: duplicate address detection runs:\n%s", cmd, out)
		}
	}

	routes, err := ownRoutes(node)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range v.routes(sources) {
		if got := routes[want.dst]; got != want {
			t.Errorf("route to %s: got %+v, want %+v", want.dst, got, want)
		}
	}
}

func TestVeth_Clash(t *testing.T) {
	v := testVeth()
	tests := []struct {
		name       string
		onNode     netlink.LinkAttrs
		inPod      string
		wantDevice string
	}{
		{name: "name-taken", onNode: netlink.LinkAttrs{Name: v.host}, wantDevice: v.host},
		{name: "index-taken", onNode: netlink.LinkAttrs{Name: "other", Index: v.index()}, wantDevice: "other"},
		{name: "both-taken", onNode: netlink.LinkAttrs{Name: v.host, Index: v.index()}, wantDevice: v.host},
		{name: "inside-taken", inPod: insideName, wantDevice: insideName},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			nodeNS, podNS := testNS(t, "node"), testNS(t, "pod")
			node, pod := testHost(t, nodeNS), testHost(t, podNS)
			if tt.onNode.Name != "" {
				if err := nodeNS.AddLink(&netlink.Bridge{LinkAttrs: tt.onNode}); err != nil {
					t.Fatal(err)
				}
			}
			if tt.inPod != "" {
				if err := podNS.AddBridge(tt.inPod); err != nil {
					t.Fatal(err)
				}
			}
			_, err := v.create(node, pod)
			var clash *NameClashError
			if !errors.As(err, &clash) || clash.Device != tt.wantDevice {
				t.Errorf("create: got %v, want a clash about %s", err, tt.wantDevice)
			}
		})
	}
}

// TestVeth_NamespaceReplaced gives a slot's device to a new namespace when the old one is gone.
func TestVeth_NamespaceReplaced(t *testing.T) {
	nodeNS, oldNS, newNS := testNS(t, "node"), testNS(t, "old"), testNS(t, "new")
	node, oldPod, newPod := testHost(t, nodeNS), testHost(t, oldNS), testHost(t, newNS)
	v := testVeth()
	for _, pod := range []*host{oldPod, newPod} {
		made, err := v.create(node, pod)
		if err != nil || !made {
			t.Fatalf("create: made %v, %v", made, err)
		}
	}
	if _, err := newNS.Link(insideName); err != nil {
		t.Error(err)
	}
	if _, err := oldNS.Link(insideName); err == nil {
		t.Error("the old namespace still has its device")
	}
}
