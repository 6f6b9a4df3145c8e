// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var c3 = Scope{Cluster: "c3", ClusterID: 3, MaxClusters: 255}

// compare holds for all rows: netip types by their own ==, packed text by its parts, and an empty
// map is an absent one.
var compare = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Transformer("unpack", PackedWorkload.Unpack),
	cmpopts.EquateEmpty(),
}

func readGolden(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "golden", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// golden checks that a value is written as the bytes of a file, that the bytes are read as want,
// and that the key is what it should be.
func golden[K comparable, V any](t *testing.T, c Codec[K, V], key, file string, value, want V) {
	t.Helper()
	b := readGolden(t, file)
	k, err := c.ParseKey(key[len(c.Prefix):])
	if err != nil {
		t.Fatalf("parse key: %v", err)
	}
	if got := c.Prefix + c.FormatKey(k); got != key {
		t.Errorf("format key: got %q, want %q", got, key)
	}
	got, err := c.Encode(k, value)
	if err != nil {
		t.Fatalf("encode: %v", err)
	}
	if diff := cmp.Diff(string(b), string(got)); diff != "" {
		t.Errorf("encode (-want +got):\n%s", diff)
	}
	read, err := c.Decode(k, b)
	if err != nil {
		t.Fatalf("decode: %v", err)
	}
	if diff := cmp.Diff(want, read, compare); diff != "" {
		t.Errorf("decode (-want +got):\n%s", diff)
	}
	if !c.Equal(read, want) {
		t.Error("decode: not equal to want by the codec's own Equal")
	}
}

func prefixes(texts ...string) (ps []netip.Prefix) {
	for _, s := range texts {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func addrs(texts ...string) (as []netip.Addr) {
	for _, s := range texts {
		as = append(as, netip.MustParseAddr(s))
	}
	return as
}

func nodeN1() Node {
	return Node{
		Name: "n1", Cluster: "c3", ClusterID: 3,
		Addresses: []NodeAddress{
			{InternalIP, netip.MustParseAddr("172.16.0.1")},
			{CiliumInternalIP, netip.MustParseAddr("10.244.1.7")},
			{InternalIP, netip.MustParseAddr("fc00::1")},
		},
		PodCIDRs:   prefixes("10.244.1.0/24", "fd00:10:244:1::/64"),
		HealthIPv4: netip.MustParseAddr("10.244.1.9"),
		Source:     "local", EncryptionKey: 255,
		Labels:          map[string]string{"kubernetes.io/hostname": "n1"},
		WireguardPubKey: "k=", BootID: "b",
	}
}

func ipWeb0() IP {
	return IP{
		HostIP: netip.MustParseAddr("172.16.0.1"), ID: 196865,
		Workload: Workload{
			Metadata: "cilium-global:c3:n1:432", Namespace: "default", Name: "web-0", ServiceAccount: "default",
			NamedPorts: []NamedPort{{"http", 80, TCP}},
		}.Pack(),
	}
}

func serviceWeb() ClusterService {
	http := map[string]L4{"http": {TCP, 80}}
	backend := netip.MustParseAddr("10.244.1.5")
	return ClusterService{
		Cluster: "c3", Namespace: "default", Name: "web", ClusterID: 3,
		Frontends:       map[netip.Addr]map[string]L4{netip.MustParseAddr("10.96.0.9"): http},
		Backends:        map[netip.Addr]map[string]L4{backend: http},
		Hostnames:       map[netip.Addr]string{backend: "web-0"},
		Zones:           map[netip.Addr]Zone{backend: {Zone: "z1", ForZones: []string{"z1"}}},
		IncludeExternal: true, Shared: true,
	}
}

func endpointWeb0() Endpoint {
	return Endpoint{
		Namespace: "default", Name: "web-0", Addresses: addrs("10.244.1.5", "fd00:10:244:1::5"),
		Labels:   map[string]string{"k8s:app": "web", "k8s:io.kubernetes.pod.namespace": "default"},
		Identity: 196865, NamedPorts: []NamedPort{{"http", 80, TCP}}, ServiceAccount: "default",
	}
}

func TestGolden_OpenSchema(t *testing.T) {
	t.Run("node", func(t *testing.T) {
		// The row repeats its primary CIDR among the secondary ones; a reader drops the repetition.
		written := nodeN1()
		written.PodCIDRs = prefixes("10.244.1.0/24", "10.244.1.0/24", "fd00:10:244:1::/64")
		golden(t, Nodes(c3), "cilium/state/nodes/v1/c3/n1", "nodes/n1.json", written, nodeN1())
	})
	t.Run("ip", func(t *testing.T) {
		golden(t, IPs(c3), "cilium/state/ip/v1/default/10.244.1.5", "ip/10.244.1.5.json", ipWeb0(), ipWeb0())
	})
	t.Run("ip-prefix", func(t *testing.T) {
		golden(t, IPs(c3), "cilium/state/ip/v1/default/10.244.1.0/24", "ip/10.244.1.0_24.json", IP{ID: 3}, IP{ID: 3})
	})
	t.Run("service", func(t *testing.T) {
		golden(t, Services(c3), "cilium/state/services/v1/c3/default/web", "services/web.json", serviceWeb(), serviceWeb())
	})
	t.Run("identity", func(t *testing.T) {
		labels := string(readGolden(t, "identities/196865.txt"))
		golden(t, Identities(c3), "cilium/state/identities/v1/id/196865", "identities/196865.txt", labels, labels)
	})
	t.Run("cluster-config", func(t *testing.T) {
		c := ClusterConfig{
			ID: 3, SyncedCanaries: true, MaxConnectedClusters: 255, ServiceExports: On,
			EndpointSlices: EndpointSlicesBoth,
		}
		golden(t, ClusterConfigs(), "cilium/cluster-config/c3", "cluster-config/c3.json", c, c)
		c = ClusterConfig{ID: 3, SyncedCanaries: true, Cached: true, MaxConnectedClusters: 255}
		golden(t, ClusterConfigs(), "cilium/cluster-config/c3", "cluster-config/c3-cached.json", c, c)
		golden(t, ClusterConfigs(), "cilium/cluster-config/c3", "cluster-config/zero.json", ClusterConfig{}, ClusterConfig{})
	})
	t.Run("time", func(t *testing.T) {
		when := time.Date(2026, 1, 2, 16, 4, 5, 6, time.FixedZone("x", 3600))
		if got, want := string(EncodeTime(when)), string(readGolden(t, "time/heartbeat.txt")); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got, err := DecodeTime(HeartbeatKey, EncodeTime(when)); err != nil || !got.Equal(when.Truncate(time.Second)) {
			t.Errorf("decode: %v, %v", got, err)
		}
	})
}

// The zero node has no name, so it is no row; its wire form still shows that every member is
// always written.
func TestGolden_ZeroNode(t *testing.T) {
	got, err := encodeJSON("", wireNode{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(readGolden(t, "nodes/zero.json")), string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestGolden_OwnRows(t *testing.T) {
	t.Run("endpoint", func(t *testing.T) {
		golden(t, Endpoints(c3), "weft/v1/endpoints/n1/432", "endpoints/432.json", endpointWeb0(), endpointWeb0())
	})
	t.Run("endpoint-next-version", func(t *testing.T) {
		e := Endpoint{
			Namespace: "default", Name: "web-0", Addresses: addrs("10.244.1.5"),
			Labels: map[string]string{"k8s:app": "web"}, Identity: 196865, State: EndpointTerminating,
			Extra: `"zone":"z1","zz":{"a":[1,2]}`,
		}
		golden(t, Endpoints(c3), "weft/v1/endpoints/n1/432", "endpoints/432-next-version.json", e, e)
	})
	t.Run("definition", func(t *testing.T) {
		d := Definition{
			Ports: []ServicePort{
				{Name: "http", Protocol: TCP, Port: 80, TargetName: "http"},
				{Name: "dns", Protocol: UDP, Port: 53, TargetPort: 5353},
			},
			Selector:    map[string]string{"app": "web"},
			Annotations: map[string]string{"service.cilium.io/global": "true"},
			VIPs:        addrs("10.96.0.9", "fd00:96::9"),
		}
		golden(t, Definitions(), "weft/v1/services/default/web", "definitions/web.json", d, d)
	})
	t.Run("definition-outside", func(t *testing.T) {
		d := Definition{
			Ports: []ServicePort{{Protocol: TCP, Port: 5432}},
			Backends: []Backend{
				{Addr: netip.MustParseAddr("192.0.2.7")},
				{
					Addr: netip.MustParseAddr("192.0.2.8"), Ports: map[string]uint16{"": 5433}, Hostname: "db-1",
					State: EndpointTerminating,
				},
			},
			Labels: map[string]string{"team": "data"},
		}
		golden(t, Definitions(), "weft/v1/services/default/db", "definitions/outside.json", d, d)
	})
	t.Run("vip", func(t *testing.T) {
		v := VIP{Namespace: "default", Name: "web"}
		golden(t, VIPs(), "weft/v1/vips/10.96.0.9", "vips/10.96.0.9.json", v, v)
	})
	t.Run("owner", func(t *testing.T) {
		o := Owner{Epoch: "00112233445566778899aabbccddeeff", Rows: 12, Complete: true}
		golden(t, Owners(), "weft/v1/owners/n1", "owners/n1.json", o, o)
		left := Owner{Epoch: o.Epoch, Complete: true, Left: true}
		golden(t, Owners(), "weft/v1/owners/n1", "owners/left.json", left, left)
	})
	t.Run("resting", func(t *testing.T) {
		r := Resting{
			Freed:  time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC),
			Labels: "k8s:app=old;k8s:io.cilium.k8s.policy.cluster=c3;",
		}
		golden(t, Restings(c3), "weft/v1/resting/196866", "restings/196866.json", r, r)
	})
	t.Run("epoch", func(t *testing.T) {
		want := readGolden(t, "epoch/epoch.json")
		e, err := DecodeEpoch(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := EncodeEpoch(e)
		if err != nil || string(got) != string(want) {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	})
	t.Run("decision", func(t *testing.T) {
		want := readGolden(t, "decision/decision.json")
		d, err := DecodeDecision(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := EncodeDecision(d)
		if err != nil || string(got) != string(want) {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	})
}

func TestKeys_OfTheOpenSchema(t *testing.T) {
	cached := c3
	cached.Cached = true
	labels := "k8s:app=web;k8s:io.cilium.k8s.policy.cluster=c3;k8s:io.kubernetes.pod.namespace=default;"
	for _, c := range []struct{ got, want string }{
		{Nodes(cached).Prefix, "cilium/cache/nodes/v1/c3/"},
		{IPs(cached).Prefix, "cilium/cache/ip/v1/c3/"},
		{Identities(cached).Prefix, "cilium/cache/identities/v1/c3/id/"},
		{Services(cached).Prefix, "cilium/cache/services/v1/c3/"},
		{SyncedKey("c3", ResourceNodes, false), "cilium/synced/c3/cilium/state/nodes/v1"},
		{SyncedKey("c3", ResourceIPs, false), "cilium/synced/c3/cilium/state/ip/v1"},
		{SyncedKey("c3", ResourceIdentities, true), "cilium/synced/c3/cilium/cache/identities/v1"},
		{IdentityMasterKey(196865), "cilium/state/identities/v1/id/196865"},
		{
			IdentityReferenceKey(labels, netip.MustParseAddr("172.16.0.1")),
			"cilium/state/identities/v1/value/" + labels + "/172.16.0.1",
		},
		{IdentityLockPath(labels), "cilium/state/identities/v1/locks/" + labels},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
