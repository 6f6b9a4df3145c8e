// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// equalAddrs compares addresses, whose fields cmp does not see.
func equalAddrs() cmp.Option {
	return cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	}
}

func viewConfig(mode Mode) Config {
	return Config{
		Cluster: "one", NodeName: "a", Mode: mode,
		NodeIPs:   []netip.Addr{addr("192.0.2.1"), addr("fd00:ffff::1")},
		InsideIPs: []netip.Addr{addr("10.0.1.1")},
	}
}

// tableView fills a view from tables, as the loop does.
func tableView(cfg Config, t Tables) *ipcacheView {
	v := newIPCacheView(cfg, func(k schema.IPKey) (schema.IP, bool) {
		r, ok := t.IPs.Get(k)
		return r.Value, ok
	})
	v.applyEndpoints(t.Endpoints.Cursor().Next(0))
	v.applyClusters(t.Clusters.Cursor().Next(0))
	v.applyNodes(t.Nodes.Cursor().Next(0))
	v.applyIPs(t.IPs.Cursor().Next(0))
	return v
}

func testMeshNode(cluster, name, v4, v6 string, cidrs ...string) schema.Node {
	n := schema.Node{Name: name, Cluster: cluster}
	for _, a := range []string{v4, v6} {
		if a != "" {
			n.Addresses = append(n.Addresses, schema.NodeAddress{Type: schema.InternalIP, IP: addr(a)})
		}
	}
	for _, c := range cidrs {
		n.PodCIDRs = append(n.PodCIDRs, prefix(c))
	}
	return n
}

func TestIPCacheRow_Tables(t *testing.T) {
	const src = state.Source("test")
	remote := addr("192.0.2.2")
	tests := []struct {
		name string
		mode Mode
		fill func(Tables)
		at   string
		want IPCacheEntry
		none bool
	}{
		{name: "nothing-known", at: "10.0.9.9/32", none: true},
		{
			name: "own-node-address", at: "192.0.2.1/32",
			want: IPCacheEntry{Identity: identityHost, Kind: KindSelf, Cluster: "one"},
		},
		{
			name: "own-inside-address", at: "10.0.1.1/32",
			want: IPCacheEntry{Identity: identityHost, Kind: KindSelf, Cluster: "one"},
		},
		{
			name: "local-endpoint", at: "10.0.1.7/32",
			fill: func(t Tables) {
				t.Endpoints.Put(src, 0, 7, LocalEndpoint{Slot: 7, IPv4: addr("10.0.1.7"), Identity: 1007})
			},
			want: IPCacheEntry{Identity: 1007, Slot: 7, Kind: KindEndpoint, Cluster: "one"},
		},
		{
			name: "local-endpoint-without-identity", at: "10.0.1.7/32", none: true,
			fill: func(t Tables) { t.Endpoints.Put(src, 0, 7, LocalEndpoint{Slot: 7, IPv4: addr("10.0.1.7")}) },
		},
		{
			name: "local-endpoint-beats-everything", at: "10.0.1.7/32",
			fill: func(t Tables) {
				t.Endpoints.Put(src, 0, 7, LocalEndpoint{Slot: 7, IPv4: addr("10.0.1.7"), Identity: 1007})
				t.IPs.Put(src, 0, schema.IPKey{Cluster: "one", Prefix: prefix("10.0.1.7/32")}, schema.IP{HostIP: remote, ID: 5})
				t.IPs.Put(src, 0, schema.IPKey{Cluster: "two", Prefix: prefix("10.0.1.7/32")}, schema.IP{HostIP: remote, ID: 6})
			},
			want: IPCacheEntry{Identity: 1007, Slot: 7, Kind: KindEndpoint, Cluster: "one"},
		},
		{
			name: "ip-row-of-this-node-without-endpoint", at: "10.0.1.8/32", none: true,
			fill: func(t Tables) {
				t.IPs.Put(src, 0, schema.IPKey{Cluster: "one", Prefix: prefix("10.0.1.8/32")}, schema.IP{HostIP: addr("192.0.2.1"), ID: 5})
			},
		},
		{
			name: "remote-endpoint-native", at: "10.0.2.7/32",
			fill: func(t Tables) {
				t.IPs.Put(src, 0, schema.IPKey{Cluster: "two", Prefix: prefix("10.0.2.7/32")}, schema.IP{HostIP: remote, ID: 70000})
			},
			want: IPCacheEntry{Identity: 70000, Node: remote, Kind: KindIP, Cluster: "two"},
		},
		{
			name: "remote-host-identity-is-relative", mode: ModeVXLAN, at: "10.0.2.7/32",
			fill: func(t Tables) {
				t.IPs.Put(src, 0, schema.IPKey{Cluster: "two", Prefix: prefix("10.0.2.7/32")}, schema.IP{HostIP: remote, ID: identityHost})
			},
			want: IPCacheEntry{Identity: identityRemoteNode, Node: remote, Kind: KindIP, Cluster: "two"},
		},
		{
			name: "host-of-the-other-family-is-remapped", mode: ModeVXLAN, at: "fd00:2::7/128",
			fill: func(t Tables) {
				t.Nodes.Put(src, 0, schema.NodeKey{Cluster: "two", Name: "b"}, testMeshNode("two", "b", "192.0.2.2", "fd00:ffff::2"))
				t.IPs.Put(src, 0, schema.IPKey{Cluster: "two", Prefix: prefix("fd00:2::7/128")}, schema.IP{HostIP: addr("fd00:ffff::2"), ID: 9})
			},
			want: IPCacheEntry{Identity: 9, Node: remote, Kind: KindIP, Cluster: "two"},
		},
		{
			name: "host-of-the-other-family-unknown", mode: ModeVXLAN, at: "fd00:2::7/128",
			fill: func(t Tables) {
				t.IPs.Put(src, 0, schema.IPKey{Cluster: "two", Prefix: prefix("fd00:2::7/128")}, schema.IP{HostIP: addr("fd00:ffff::2"), ID: 9})
			},
			want: IPCacheEntry{Identity: 9, Kind: KindIP, Cluster: "two"},
		},
		{
			name: "remote-node-address", mode: ModeVXLAN, at: "fd00:ffff::2/128",
			fill: func(t Tables) {
				t.Nodes.Put(src, 0, schema.NodeKey{Cluster: "two", Name: "b"}, testMeshNode("two", "b", "192.0.2.2", "fd00:ffff::2"))
			},
			want: IPCacheEntry{Identity: identityRemoteNode, Node: remote, Kind: KindNode, Cluster: "two"},
		},
		{
			name: "pod-cidr-gets-no-more-than-the-world", mode: ModeVXLAN, at: "10.0.2.0/24",
			fill: func(t Tables) {
				t.Nodes.Put(src, 0, schema.NodeKey{Cluster: "two", Name: "b"}, testMeshNode("two", "b", "192.0.2.2", "", "10.0.2.0/24"))
			},
			want: IPCacheEntry{Identity: identityWorld, Node: remote, Kind: KindPodCIDR, Cluster: "two"},
		},
		{
			name: "own-node-row-claims-nothing", mode: ModeVXLAN, at: "10.0.1.0/24", none: true,
			fill: func(t Tables) {
				t.Nodes.Put(src, 0, schema.NodeKey{Cluster: "one", Name: "a"}, testMeshNode("one", "a", "192.0.2.1", "", "10.0.1.0/24"))
			},
		},
		{
			name: "conflict-ours-wins", at: "10.0.2.7/32",
			fill: func(t Tables) {
				t.Clusters.Put(src, 0, "two", Cluster{ID: 1, Pinned: []netip.Prefix{prefix("10.0.0.0/8")}})
				t.IPs.Put(src, 0, schema.IPKey{Cluster: "two", Prefix: prefix("10.0.2.7/32")}, schema.IP{HostIP: remote, ID: 6})
				t.IPs.Put(src, 0, schema.IPKey{Cluster: "one", Prefix: prefix("10.0.2.7/32")}, schema.IP{HostIP: addr("192.0.2.9"), ID: 5})
			},
			want: IPCacheEntry{Identity: 5, Node: addr("192.0.2.9"), Kind: KindIP, Cluster: "one"},
		},
		{
			name: "conflict-pinned-wins-over-lower-id", at: "10.0.2.7/32",
			fill: func(t Tables) {
				t.Clusters.Put(src, 0, "two", Cluster{ID: 2})
				t.Clusters.Put(src, 0, "three", Cluster{ID: 3, Pinned: []netip.Prefix{prefix("10.0.2.0/24")}})
				t.IPs.Put(src, 0, schema.IPKey{Cluster: "two", Prefix: prefix("10.0.2.7/32")}, schema.IP{HostIP: remote, ID: 6})
				t.IPs.Put(src, 0, schema.IPKey{Cluster: "three", Prefix: prefix("10.0.2.7/32")}, schema.IP{HostIP: remote, ID: 7})
			},
			want: IPCacheEntry{Identity: 7, Node: remote, Kind: KindIP, Cluster: "three"},
		},
		{
			name: "conflict-lower-id-wins", at: "10.0.2.7/32",
			fill: func(t Tables) {
				t.Clusters.Put(src, 0, "two", Cluster{ID: 2})
				t.Clusters.Put(src, 0, "three", Cluster{ID: 3})
				t.IPs.Put(src, 0, schema.IPKey{Cluster: "three", Prefix: prefix("10.0.2.7/32")}, schema.IP{HostIP: remote, ID: 7})
				t.IPs.Put(src, 0, schema.IPKey{Cluster: "two", Prefix: prefix("10.0.2.7/32")}, schema.IP{HostIP: remote, ID: 6})
			},
			want: IPCacheEntry{Identity: 6, Node: remote, Kind: KindIP, Cluster: "two"},
		},
		{
			name: "conflict-unknown-cluster-loses", at: "10.0.2.7/32",
			fill: func(t Tables) {
				t.Clusters.Put(src, 0, "two", Cluster{ID: 200})
				t.IPs.Put(src, 0, schema.IPKey{Cluster: "stranger", Prefix: prefix("10.0.2.7/32")}, schema.IP{HostIP: remote, ID: 7})
				t.IPs.Put(src, 0, schema.IPKey{Cluster: "two", Prefix: prefix("10.0.2.7/32")}, schema.IP{HostIP: remote, ID: 6})
			},
			want: IPCacheEntry{Identity: 6, Node: remote, Kind: KindIP, Cluster: "two"},
		},
		{
			name: "conflict-own-node-address-is-not-given-away", at: "192.0.2.1/32",
			fill: func(t Tables) {
				t.Nodes.Put(src, 0, schema.NodeKey{Cluster: "two", Name: "b"}, testMeshNode("two", "b", "192.0.2.1", ""))
			},
			want: IPCacheEntry{Identity: identityHost, Kind: KindSelf, Cluster: "one"},
		},
		{
			name: "same-pod-cidr-on-two-nodes", mode: ModeVXLAN, at: "10.0.2.0/24",
			fill: func(t Tables) {
				t.Nodes.Put(src, 0, schema.NodeKey{Cluster: "two", Name: "c"}, testMeshNode("two", "c", "192.0.2.3", "", "10.0.2.0/24"))
				t.Nodes.Put(src, 0, schema.NodeKey{Cluster: "two", Name: "b"}, testMeshNode("two", "b", "192.0.2.2", "", "10.0.2.0/24"))
			},
			want: IPCacheEntry{Identity: identityWorld, Node: remote, Kind: KindPodCIDR, Cluster: "two"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tables := testTables()
			if tt.fill != nil {
				tt.fill(tables)
			}
			got, ok := tableView(viewConfig(tt.mode), tables).row(prefix(tt.at))
			if ok == tt.none {
				t.Fatalf("row of %s: found %v, want %v: %+v", tt.at, ok, !tt.none, got)
			}
			if diff := cmp.Diff(tt.want, got, equalAddrs()); diff != "" {
				t.Errorf("row of %s: -want +got\n%s", tt.at, diff)
			}
		})
	}
}

// TestIPCacheView_Incremental takes everything away again, piece by piece.
func TestIPCacheView_Incremental(t *testing.T) {
	const src = state.Source("test")
	tables := testTables()
	markSynced(tables)
	out := state.NewTable[netip.Prefix]("ipcache", state.Equal[IPCacheEntry])
	ctx, cancel := contextOf(t)
	done := make(chan error, 1)
	go func() { done <- deriveIPCache(ctx, viewConfig(ModeVXLAN), tables, out) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	want := func(p string, kind Kind, node string) {
		t.Helper()
		eventually(t, func() error {
			r, ok := out.Get(prefix(p))
			if !ok || r.Value.Kind != kind || r.Value.Node != addr(node) {
				return errorf("row of %s: %v %+v, want %s at %s", p, ok, r.Value, kind, node)
			}
			return nil
		})
	}
	none := func(p string) {
		t.Helper()
		eventually(t, func() error {
			if r, ok := out.Get(prefix(p)); ok {
				return errorf("row of %s: %+v, want none", p, r.Value)
			}
			return nil
		})
	}
	key := schema.NodeKey{Cluster: "two", Name: "b"}
	six := schema.IPKey{Cluster: "two", Prefix: prefix("fd00:2::7/128")}
	tables.IPs.Put(src, 0, six, schema.IP{HostIP: addr("fd00:ffff::2"), ID: 9})
	tables.Nodes.Put(src, 0, key, testMeshNode("two", "b", "192.0.2.2", "fd00:ffff::2", "10.0.2.0/24"))
	want("fd00:2::7/128", KindIP, "192.0.2.2")
	want("10.0.2.0/24", KindPodCIDR, "192.0.2.2")
	// The node gets another address: its endpoints move with it.
	tables.Nodes.Put(src, 0, key, testMeshNode("two", "b", "192.0.2.3", "fd00:ffff::2", "10.0.2.0/24"))
	want("fd00:2::7/128", KindIP, "192.0.2.3")
	none("192.0.2.2/32")
	tables.Nodes.Delete(src, 0, key)
	none("10.0.2.0/24")
	tables.IPs.Delete(src, 0, six)
	none("fd00:2::7/128")
	if !out.Synced() {
		t.Error("the derived table is not synced although its inputs are")
	}
}
