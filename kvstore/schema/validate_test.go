// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// refuses checks that each value under the key is refused by an *InvalidError with the reason.
func refuses[K comparable, V any](t *testing.T, c Codec[K, V], tail string, cases map[string]struct{ value, reason string }) {
	t.Helper()
	k, err := c.ParseKey(tail)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := c.Decode(k, []byte(tc.value))
			var inv *InvalidError
			if !errors.As(err, &inv) {
				t.Fatalf("got %v, want an *InvalidError", err)
			}
			if !strings.Contains(inv.Reason, tc.reason) {
				t.Errorf("got reason %q, want %q in it", inv.Reason, tc.reason)
			}
		})
	}
}

type bad = map[string]struct{ value, reason string }

// with replaces one part of a golden value, which must be there.
func with(t *testing.T, file, from, to string) string {
	t.Helper()
	s := string(readGolden(t, file))
	if !strings.Contains(s, from) {
		t.Fatalf("%s has no %q", file, from)
	}
	return strings.Replace(s, from, to, 1)
}

func TestDecode_Node(t *testing.T) {
	const f = "nodes/n1.json"
	refuses(t, Nodes(c3), "n1", bad{
		"other-name":       {with(t, f, `"Name":"n1"`, `"Name":"n2"`), `name "n2"`},
		"no-name":          {with(t, f, `"Name":"n1"`, `"Name":""`), "name is empty"},
		"other-cluster":    {with(t, f, `"Cluster":"c3"`, `"Cluster":"c4"`), `cluster "c4"`},
		"other-cluster-id": {with(t, f, `"ClusterID":3`, `"ClusterID":4`), "cluster id 4"},
		"string-cidr":      {with(t, f, `{"IP":"10.244.1.0","Mask":"////AA=="}`, `"10.244.1.0/24"`), "is a JSON string"},
		"mask-with-hole":   {with(t, f, `"////AA=="`, `"/wD/AA=="`), "mask"},
		"short-mask":       {with(t, f, `"////AA=="`, `"//8="`), "mask"},
		"ipv6-around-ipv4": {with(t, f, `{"IP":"10.244.1.0","Mask":"////AA=="}`, `{"IP":"::","Mask":"//////////8AAAAAAAAAAA=="}`), "all IPv4"},
		"bad-address":      {with(t, f, `"172.16.0.1"`, `"172.16.0.256"`), "not an address"},
		"zone":             {with(t, f, `"fc00::1"`, `"fe80::1%eth0"`), "not an address"},
		"key-too-large":    {with(t, f, `"EncryptionKey":255`, `"EncryptionKey":256`), "EncryptionKey"},
		"not-json":         {"nodes", "not JSON"},
		"null":             {"null", "not a JSON object"},
		"empty":            {"", "not JSON"},
		"cut-off":          {`{"Name":"n1"`, "not JSON"},
		"invalid-utf8":     {with(t, f, `"BootID":"b"`, "\"BootID\":\"\xff\""), "UTF-8"},
		"too-large":        {with(t, f, `"BootID":"b"`, `"BootID":"`+strings.Repeat("b", 1<<20)+`"`), "more than"},
	})
}

func TestDecode_IP(t *testing.T) {
	const f = "ip/10.244.1.5.json"
	refuses(t, IPs(c3), "10.244.1.5", bad{
		"other-address":        {with(t, f, `"IP":"10.244.1.5"`, `"IP":"10.244.1.6"`), "says 10.244.1.6"},
		"other-family":         {with(t, f, `"IP":"10.244.1.5"`, `"IP":"fd00::5"`), "says fd00::5"},
		"prefix":               {with(t, f, `"Mask":null`, `"Mask":"////AA=="`), "says 10.244.1.5/24"},
		"empty-mask":           {with(t, f, `"Mask":null`, `"Mask":""`), "mask"},
		"no-address":           {with(t, f, `"IP":"10.244.1.5"`, `"IP":""`), "no IP"},
		"other-cluster-number": {with(t, f, `196865`, `262144`), "not in the range"},
		"local-number":         {with(t, f, `196865`, `16777217`), "not in the range"},
		"number-of-no-cluster": {with(t, f, `196865`, `256`), "not in the range"},
		"no-identity":          {with(t, f, `196865`, `0`), "no identity"},
		"negative":             {with(t, f, `196865`, `-1`), "ID"},
		"bad-host":             {with(t, f, `172.16.0.1`, `n1`), "HostIP"},
		"nul-in-name":          {with(t, f, `"web-0"`, `"web\u0000"`), "NUL"},
		"port-too-large":       {with(t, f, `"Port":80`, `"Port":65536`), "Port"},
		"trailing-bytes":       {string(readGolden(t, f)) + "{}", "not JSON"},
		"invalid-utf8":         {with(t, f, `"web-0"`, "\"\xc0\xaf\""), "UTF-8"},
		"too-large":            {with(t, f, `"web-0"`, `"`+strings.Repeat("b", 1<<20)+`"`), "more than"},
	})
	refuses(t, IPs(c3), "127.0.0.1", bad{"loopback": {`{"IP":"127.0.0.1","ID":2}`, "not the address of an endpoint"}})
	refuses(t, IPs(c3), "10.244.1.0/24", bad{"no-mask": {`{"IP":"10.244.1.0","ID":2}`, "says 10.244.1.0"}})
}

// An IPv6 prefix must not be in force for IPv4 addresses.
func TestIPKey_AroundIPv4(t *testing.T) {
	for key, want := range map[string]bool{
		"::/0": false, "::/64": false, "::/80": false, "2000::/3": true, "fd00::/8": true, "0.0.0.0/0": true, "::1:0:0:0/80": true,
	} {
		if _, err := parseIP(key); (err == nil) != want {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// What another implementation of the schema may write differently and still mean the same.
func TestDecode_ForeignSpelling(t *testing.T) {
	plain, err := IPs(c3).Decode(IPKey{"c3", netip.MustParsePrefix("10.244.1.5/32")}, readGolden(t, "ip/10.244.1.5.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"other-order": `{"NamedPorts":[{"Protocol":"TCP","Name":"http","Port":80}],"K8sServiceAccount":"default","K8sPodName":"web-0",
			"K8sNamespace":"default","Metadata":"cilium-global:c3:n1:432","Key":0,"ID":196865,"HostIP":"172.16.0.1","IP":"10.244.1.5"}`,
		"unknown-member": with(t, "ip/10.244.1.5.json", `"Key":0`, `"Key":0,"New":{"a":[1]}`),
		"escapes":        with(t, "ip/10.244.1.5.json", `"web-0"`, `"\u0077eb-0"`),
		"lower-case":     with(t, "ip/10.244.1.5.json", `"HostIP"`, `"hostIP"`),
		"mapped-host":    with(t, "ip/10.244.1.5.json", `"172.16.0.1"`, `"::ffff:172.16.0.1"`),
		"full-mask":      with(t, "ip/10.244.1.5.json", `"Mask":null`, `"Mask":"/////w=="`),
		"long-mask":      with(t, "ip/10.244.1.5.json", `"Mask":null`, `"Mask":"/////////////////////w=="`),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := IPs(c3).Decode(IPKey{"c3", netip.MustParsePrefix("10.244.1.5/32")}, []byte(value))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(plain, got, compare); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	t.Run("sparse-node", func(t *testing.T) {
		n, err := Nodes(c3).Decode(NodeKey{"c3", "n1"}, []byte(
			`{"ClusterID":3,"Name":"n1","Cluster":"c3","IPAddresses":[{"Type":"Hostname","IP":""},{"IP":"172.16.0.1","Type":"InternalIP"}],
			"IPv4AllocCIDR":{"Mask":"////AA==","IP":"10.244.1.77"},"IPv4SecondaryAllocCIDRs":[null]}`))
		if err != nil {
			t.Fatal(err)
		}
		want := Node{
			Name: "n1", Cluster: "c3", ClusterID: 3, PodCIDRs: prefixes("10.244.1.0/24"),
			Addresses: []NodeAddress{{InternalIP, netip.MustParseAddr("172.16.0.1")}},
		}
		if diff := cmp.Diff(want, n, compare); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if got := n.Address(InternalIP, false); got != want.Addresses[0].IP {
			t.Errorf("address: got %s", got)
		}
	})
	t.Run("unknown-protocol-is-carried", func(t *testing.T) {
		v, err := Services(c3).Decode(ServiceKey{"c3", "default", "web"}, []byte(with(t, "services/web.json", `"TCP"`, `"DCCP"`)))
		if err != nil {
			t.Fatal(err)
		}
		if got := v.Frontends[netip.MustParseAddr("10.96.0.9")]["http"].Protocol; got != AnyProtocol {
			t.Errorf("got %s", got)
		}
	})
	t.Run("reserved-identity", func(t *testing.T) {
		for _, id := range []string{"1", "6", "104", "255", "196608", "262143"} {
			if _, err := IPs(c3).Decode(IPKey{"c3", netip.MustParsePrefix("10.0.0.1/32")}, []byte(`{"IP":"10.0.0.1","ID":`+id+`}`)); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestDecode_Service(t *testing.T) {
	const f = "services/web.json"
	refuses(t, Services(c3), "default/web", bad{
		"other-name":       {with(t, f, `"name":"web"`, `"name":"api"`), "says default/api"},
		"other-namespace":  {with(t, f, `"default"`, `"kube-system"`), "says kube-system/web"},
		"no-name":          {with(t, f, `"name":"web"`, `"name":""`), "name is empty"},
		"other-cluster":    {with(t, f, `"cluster":"c3"`, `"cluster":"c4"`), `cluster "c4"`},
		"other-cluster-id": {with(t, f, `"clusterID":3`, `"clusterID":0`), "cluster id 0"},
		"bad-frontend":     {with(t, f, `10.96.0.9`, `10.96.0`), "frontend"},
		"bad-backend":      {with(t, f, `"backends":{"10.244.1.5"`, `"backends":{"web-0"`), "backend"},
		"backend-twice":    {with(t, f, `"backends":{`, `"backends":{"::ffff:10.244.1.5":{},`), "twice"},
		"array":            {"[]", "JSON array"},
	})
}

func TestDecode_Identity(t *testing.T) {
	c := "k8s:app=web;k8s:io.cilium.k8s.policy.cluster=c3;"
	refuses(t, Identities(c3), "196865", bad{
		"no-cluster":    {"k8s:app=web;", "name no cluster"},
		"other-cluster": {"k8s:io.cilium.k8s.policy.cluster=c33;", `cluster "c33"`},
		"two-clusters":  {c + "k8s:io.cilium.k8s.policy.cluster=c4;", `cluster "c4"`},
		"other-source":  {"any:io.cilium.k8s.policy.cluster=c3;", "name no cluster"},
		"empty":         {"", "name no cluster"},
		"invalid-utf8":  {c + "\xff", "UTF-8"},
		"nul":           {c + "\x00", "NUL"},
	})
	refuses(t, Identities(c3), "262144", bad{"other-range": {c, "range"}})
	refuses(t, Identities(c3), "100", bad{"reserved": {c, "range"}})
}

func TestDecode_OwnRows(t *testing.T) {
	const e = "endpoints/432.json"
	refuses(t, Endpoints(c3), "n1/432", bad{
		"no-address":     {with(t, e, `"10.244.1.5","fd00:10:244:1::5"`, ``), "no address"},
		"two-of-family":  {with(t, e, `"fd00:10:244:1::5"`, `"10.244.1.6"`), "one of each family"},
		"not-an-address": {with(t, e, `"fd00:10:244:1::5"`, `""`), "is not one"},
		"multicast":      {with(t, e, `10.244.1.5`, `224.0.0.1`), "cannot be"},
		"state":          {with(t, e, `"ready"`, `"gone"`), `state "gone"`},
		"identity":       {with(t, e, `196865`, `65536`), "range"},
		"port-zero":      {with(t, e, `"port":80`, `"port":0`), "named port"},
		"protocol":       {with(t, e, `"TCP"`, `"tcp"`), "protocol"},
	})
	const d = "definitions/web.json"
	refuses(t, Definitions(), "default/web", bad{
		"other-name":    {with(t, d, `"name":"web"`, `"name":"api"`), "says default/api"},
		"no-ports":      {`{}`, "no port"},
		"port-zero":     {with(t, d, `"port":80`, `"port":0`), "no number"},
		"port-twice":    {with(t, d, `"protocol":"UDP","port":53`, `"protocol":"TCP","port":80`), "twice"},
		"name-twice":    {with(t, d, `"dns"`, `"http"`), "twice"},
		"unnamed":       {with(t, d, `"name":"dns",`, ``), "no name"},
		"two-vips":      {with(t, d, `"fd00:96::9"`, `"10.96.0.10"`), "one of each family"},
		"both-backends": {with(t, d, `"vips"`, `"backends":[{"address":"192.0.2.1"}],"vips"`), "one of them"},
		"target":        {with(t, d, `5353`, `70000`), "targetPort"},
	})
	refuses(t, Definitions(), "default/db", bad{
		"backend-twice": {with(t, "definitions/outside.json", `192.0.2.8`, `192.0.2.7`), "twice"},
		"backend-port":  {with(t, "definitions/outside.json", `{"":5433}`, `{"x":5433}`), `port "x"`},
		"no-address":    {with(t, "definitions/outside.json", `192.0.2.8`, ``), "cannot be one"},
	})
	refuses(t, VIPs(), "10.96.0.9", bad{"no-service": {`{"namespace":"default"}`, "name is empty"}})
	refuses(t, Owners(), "n1", bad{
		"negative": {with(t, "owners/n1.json", `:12`, `:-1`), "-1 rows"},
		"no-epoch": {`{"rows":1}`, "epoch"},
		"left":     {with(t, "owners/left.json", `:0`, `:1`), "has left, and counts 1 rows"},
	})
}

func TestParseKey_Refuses(t *testing.T) {
	reject := func(err error, tail string) {
		t.Helper()
		var inv *InvalidError
		if !errors.As(err, &inv) {
			t.Errorf("key %q: got %v, want an *InvalidError", tail, err)
		}
	}
	for _, tail := range []string{"", "n1/x", "a\x00b", "..", "\xff", strings.Repeat("n", 254)} {
		_, err := Nodes(c3).ParseKey(tail)
		reject(err, tail)
	}
	for _, tail := range []string{
		"", "x", "10.0.0.1/24", "010.0.0.1", "10.0.0.1/08", "fd00::0001", "FD00::1", "fd00::1/64", "fe80::1%eth0",
		"::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "10.0.0.1/", "10.0.0.0/33",
	} {
		_, err := IPs(c3).ParseKey(tail)
		reject(err, tail)
	}
	for _, tail := range []string{"", "web", "/web", "default/", "a/b/c"} {
		_, err := Services(c3).ParseKey(tail)
		reject(err, tail)
		_, err = Definitions().ParseKey(tail)
		reject(err, tail)
	}
	for _, tail := range []string{"", "x", "-1", "+1", "01", "4294967296", "1/2"} {
		_, err := Identities(c3).ParseKey(tail)
		reject(err, tail)
		_, err = Endpoints(c3).ParseKey("n1/" + tail)
		reject(err, tail)
	}
	for _, tail := range []string{"", "C3", "-c3", "c3-", "c_3", "c3/x", strings.Repeat("c", 33)} {
		_, err := ClusterConfigs().ParseKey(tail)
		reject(err, tail)
	}
	for _, tail := range []string{"", "10.0.0.0/24", "10.0.0.1/32", "fd00::0"} {
		_, err := VIPs().ParseKey(tail)
		reject(err, tail)
	}
	if k, err := IPs(c3).ParseKey("10.0.0.1/32"); err != nil || IPs(c3).FormatKey(k) != "10.0.0.1" {
		t.Errorf("a host with its full length: got %v, %v", k, err)
	}
}

func TestClusterConfig_CheckRemote(t *testing.T) {
	for _, c := range []struct {
		name   string
		config ClusterConfig
		max    uint32
		want   string
	}{
		{"ok", ClusterConfig{ID: 3}, 255, ""},
		{"ok-default-size", ClusterConfig{ID: 255, MaxConnectedClusters: 255}, 0, ""},
		{"ok-larger-peer", ClusterConfig{ID: 3, MaxConnectedClusters: 511}, 255, ""},
		{"ok-511", ClusterConfig{ID: 511, MaxConnectedClusters: 511, EndpointSlices: EndpointSlicesBoth}, 511, ""},
		{"no-id", ClusterConfig{}, 255, "cluster id 0"},
		{"id-too-large", ClusterConfig{ID: 256, MaxConnectedClusters: 511}, 255, "cluster id 256"},
		{"smaller-peer", ClusterConfig{ID: 3, MaxConnectedClusters: 255}, 511, "max clusters 255"},
		{"silent-peer", ClusterConfig{ID: 3}, 511, "max clusters 255"},
		{"slices", ClusterConfig{ID: 3, EndpointSlices: "new"}, 255, "export mode"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.config.CheckRemote(c.max)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestIdentityRange(t *testing.T) {
	for _, c := range []struct{ cluster, max, first, last uint32 }{
		{3, 255, 196608, 262143}, {3, 0, 196608, 262143}, {0, 255, 256, 65535},
		{255, 255, 16711680, 16777215}, {3, 511, 98304, 131071}, {511, 511, 16744448, 16777215}, {0, 511, 256, 32767},
	} {
		if first, last := IdentityRange(c.cluster, c.max); first != c.first || last != c.last {
			t.Errorf("cluster %d of %d: got %d to %d, want %d to %d", c.cluster, c.max, first, last, c.first, c.last)
		}
	}
}

func TestParseDefinition_FileOfAPerson(t *testing.T) {
	k, d, err := ParseDefinition([]byte(`{"name":"web","ports":[{"port":80,"targetPort":"8080"}],"selector":{"app":"web"}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := Definition{Ports: []ServicePort{{Protocol: TCP, Port: 80, TargetPort: 8080}}, Selector: map[string]string{"app": "web"}}
	if diff := cmp.Diff(want, d, compare); diff != "" || k != (DefinitionKey{"default", "web"}) {
		t.Errorf("key %v (-want +got):\n%s", k, diff)
	}
}
