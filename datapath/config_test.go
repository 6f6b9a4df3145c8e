// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"strings"
	"testing"
)

func TestConfig_Validate(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(*Config)
		want  string
	}{
		{name: "good", spoil: func(*Config) {}},
		{name: "no-name", spoil: func(c *Config) { c.NodeName = "" }, want: "node name"},
		{name: "name-with-a-slash", spoil: func(c *Config) { c.NodeName = "../x" }, want: "node name"},
		{name: "no-family", spoil: func(c *Config) { c.IPv4, c.IPv6 = false, false }, want: "family"},
		{name: "no-address", spoil: func(c *Config) { c.NodeIPs = nil }, want: "no node address"},
		{name: "multicast", spoil: func(c *Config) { c.NodeIPs = []netip.Addr{addr("224.0.0.1")} }, want: "unicast"},
		{name: "two-of-a-family", spoil: func(c *Config) { c.NodeIPs = append(c.NodeIPs, addr("192.0.2.9")) }, want: "second"},
		{name: "mapped", spoil: func(c *Config) { c.NodeIPs = []netip.Addr{addr("::ffff:192.0.2.1")} }, want: "not an address"},
		{name: "host-bits", spoil: func(c *Config) { c.PodCIDRs = []netip.Prefix{prefix("10.0.1.1/24")} }, want: "not a network"},
		{name: "small-mtu", spoil: func(c *Config) { c.MTU = 500 }, want: "MTU"},
		{name: "small-map", spoil: func(c *Config) { c.MaxNodes = 1 }, want: "nodes"},
		{name: "many-endpoints", spoil: func(c *Config) { c.MaxEndpoints = 1 << 20 }, want: "endpoints"},
		{name: "many-nodes", spoil: func(c *Config) { c.MaxNodes = 1 << 20 }, want: "nodes"},
		{name: "odd-ring", spoil: func(c *Config) { c.EventBytes = 5000 }, want: "event ring"},
		{name: "mode", spoil: func(c *Config) { c.Mode = 9 }, want: "mode"},
		{name: "interval", spoil: func(c *Config) { c.GCInterval = -1 }, want: "interval"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := testConfig("a")
			cfg.NodeIPs = []netip.Addr{addr("192.0.2.1")}
			tt.spoil(&cfg)
			err := cfg.Validate()
			if tt.want == "" && err != nil {
				t.Fatal(err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want something about %q", err, tt.want)
			}
		})
	}
}

func TestConfig_PathMTU(t *testing.T) {
	tests := []struct {
		name         string
		mode         Mode
		mtu          int
		tunnel       string
		device, path int
	}{
		{name: "native", mode: ModeNative, tunnel: "192.0.2.1", device: 1500, path: 1500},
		{name: "vxlan-over-ipv4", mode: ModeVXLAN, tunnel: "192.0.2.1", device: 1500, path: 1450},
		{name: "vxlan-over-ipv6", mode: ModeVXLAN, tunnel: "fd00::1", device: 1500, path: 1430},
		{name: "native-smaller-by-configuration", mode: ModeNative, mtu: 1400, tunnel: "192.0.2.1", device: 1400, path: 1400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Config{Mode: tt.mode, MTU: tt.mtu, NodeIPs: []netip.Addr{addr(tt.tunnel)}}
			u := underlay{mtu: 1500}
			if device, path := cfg.deviceMTU(u), cfg.pathMTU(u); device != tt.device || path != tt.path {
				t.Errorf("device %d, path %d; want %d, %d", device, path, tt.device, tt.path)
			}
		})
	}
}

func TestPins_Names(t *testing.T) {
	if got := pinsOf("/bpf", "node-1.example"); got != "/bpf/weft/node-1%2eexample" {
		t.Errorf("pins: %s", got)
	}
	for name, want := range map[string]struct {
		index   int
		program string
		ok      bool
	}{
		"65543_from_endpoint": {65543, "from_endpoint", true},
		"x_from_endpoint":     {},
		"7":                   {},
		"-1_from_host":        {},
	} {
		index, program, ok := parseLink(name)
		if ok != want.ok || ok && (index != want.index || program != want.program) {
			t.Errorf("%s: %d %s %v", name, index, program, ok)
		}
	}
}
