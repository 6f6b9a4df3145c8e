// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/kvstore/schema"
)

func TestNodeRoutes_Modes(t *testing.T) {
	u := underlay{
		name: "eth0", index: 2, mtu: 1500,
		addrs: []netip.Prefix{prefix("192.0.2.1/24"), prefix("fd00:ffff::1/64")},
	}
	dev := hostDevices{hostIndex: 9}
	clusters := map[string]Cluster{"two": {ID: 2}, "three": {ID: 3}}
	key := func(cluster, name string) schema.NodeKey { return schema.NodeKey{Cluster: cluster, Name: name} }
	tests := []struct {
		name    string
		mode    Mode
		nodes   map[schema.NodeKey]schema.Node
		want    map[netip.Prefix]route
		refused int
	}{
		{
			name: "vxlan", mode: ModeVXLAN,
			nodes: map[schema.NodeKey]schema.Node{
				key("one", "a"): testMeshNode("one", "a", "192.0.2.1", "", "10.0.1.0/24"),
				key("two", "b"): testMeshNode("two", "b", "198.51.100.2", "", "10.0.2.0/24", "fd00:2::/64"),
			},
			want: map[netip.Prefix]route{
				prefix("10.0.2.0/24"): {dst: prefix("10.0.2.0/24"), link: 9, src: addr("192.0.2.1"), mtu: 1450},
				prefix("fd00:2::/64"): {dst: prefix("fd00:2::/64"), link: 9, src: addr("fd00:ffff::1"), mtu: 1450},
			},
		},
		{
			name: "vxlan-over-a-smaller-link", mode: ModeVXLAN,
			nodes: map[schema.NodeKey]schema.Node{key("two", "b"): testMeshNode("two", "b", "203.0.113.2", "", "10.0.2.0/24")},
			want: map[netip.Prefix]route{
				prefix("10.0.2.0/24"): {dst: prefix("10.0.2.0/24"), link: 9, src: addr("192.0.2.1"), mtu: 1350},
			},
		},
		{
			name: "native-direct-on-the-link", mode: ModeNative,
			nodes: map[schema.NodeKey]schema.Node{
				key("two", "b"): testMeshNode("two", "b", "192.0.2.2", "fd00:ffff::2", "10.0.2.0/24", "fd00:2::/64"),
			},
			want: map[netip.Prefix]route{
				prefix("10.0.2.0/24"): {dst: prefix("10.0.2.0/24"), link: 2, via: addr("192.0.2.2"), src: addr("192.0.2.1")},
				prefix("fd00:2::/64"): {dst: prefix("fd00:2::/64"), link: 2, via: addr("fd00:ffff::2"), src: addr("fd00:ffff::1")},
			},
		},
		{
			name: "native-elsewhere-is-the-underlay's", mode: ModeNative,
			nodes: map[schema.NodeKey]schema.Node{key("two", "b"): testMeshNode("two", "b", "198.51.100.2", "", "10.0.2.0/24")},
			want:  map[netip.Prefix]route{},
		},
		{
			name: "refused", mode: ModeVXLAN,
			nodes: map[schema.NodeKey]schema.Node{
				key("two", "b"): testMeshNode("two", "b", "198.51.100.2", "", "0.0.0.0/0", "10.0.0.0/16", "192.0.0.0/16"),
			},
			want: map[netip.Prefix]route{}, refused: 3,
		},
		{
			name: "conflict-lower-id", mode: ModeNative,
			nodes: map[schema.NodeKey]schema.Node{
				key("three", "c"): testMeshNode("three", "c", "192.0.2.3", "", "10.0.2.0/24"),
				key("two", "b"):   testMeshNode("two", "b", "192.0.2.2", "", "10.0.2.0/24"),
			},
			want: map[netip.Prefix]route{
				prefix("10.0.2.0/24"): {dst: prefix("10.0.2.0/24"), link: 2, via: addr("192.0.2.2"), src: addr("192.0.2.1")},
			},
		},
		{
			name: "conflict-winner-is-not-on-the-link", mode: ModeNative,
			nodes: map[schema.NodeKey]schema.Node{
				key("three", "c"): testMeshNode("three", "c", "192.0.2.3", "", "10.0.2.0/24"),
				key("two", "b"):   testMeshNode("two", "b", "198.51.100.2", "", "10.0.2.0/24"),
			},
			want: map[netip.Prefix]route{},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := viewConfig(tt.mode)
			cfg.PodCIDRs = []netip.Prefix{prefix("10.0.1.0/24"), prefix("fd00:1::/64")}
			got, refused := nodeRoutes(cfg, u, dev, clusters, tt.nodes, func(a netip.Addr) int {
				if a == addr("203.0.113.2") {
					return 1400
				}
				return 0
			})
			if diff := cmp.Diff(tt.want, got, equalAddrs(), cmp.AllowUnexported(route{})); diff != "" {
				t.Errorf("routes: -want +got\n%s", diff)
			}
			if len(refused) != tt.refused {
				t.Errorf("refused: %q, want %d", refused, tt.refused)
			}
		})
	}
}
