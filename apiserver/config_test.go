// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weft-net/weft/apiserver/cache"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

const goodConfig = `
name: east-1
cluster: east
etcd: /etc/weft/etcd.yaml
cluster-id: 300
max-clusters: 511
clustermesh-dir: /etc/weft/mesh
state-dir: /var/lib/weft-apiserver
listen: ":32379"
ca: /etc/weft/peers.crt
cert: /etc/weft/server.crt
key: /etc/weft/server.key
replicas:
- {name: east-1, urls: ["https://east-1.mesh.example:32379"]}
- {name: east-2, urls: ["https://east-2.mesh.example:32379"]}
metrics: 127.0.0.1:9962
history-age: 5m
history-revisions: 1000
history-bytes: 1000000
progress: 30s
coalesce: 20ms
max-connections: 7
max-streams: 1
max-watches: 2
max-requests: 3
max-bytes: 4
large-bytes: 5
stuck: 6s
join:
  listen: ":32380"
  endpoints: [east.mesh.example:32380]
  peer-ca-cert: /etc/weft/peer.crt
  peer-ca-key: /etc/weft/peer.key
  mode: native
  pod-cidrs: [10.1.0.0/16]
`

func TestConfig_IsReadFromAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "apiserver.yaml")
	if err := os.WriteFile(file, []byte(goodConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Name: "east-1", Cluster: "east", Etcd: "/etc/weft/etcd.yaml", Listen: ":32379",
		Replicas: []Replica{
			{"east-1", []string{"https://east-1.mesh.example:32379"}}, {"east-2", []string{"https://east-2.mesh.example:32379"}},
		},
		CAFile: "/etc/weft/peers.crt", CertFile: "/etc/weft/server.crt", KeyFile: "/etc/weft/server.key", Metrics: "127.0.0.1:9962",
		ClusterID: 300, MaxClusters: 511, MeshDir: "/etc/weft/mesh", StateDir: "/var/lib/weft-apiserver",
		History:  cache.History{Age: 5 * time.Minute, Revisions: 1000, Bytes: 1_000_000},
		Progress: 30 * time.Second, Coalesce: 20 * time.Millisecond,
		Limits: Limits{Connections: 7, Streams: 1, Watches: 2, Requests: 3, Bytes: 4, Large: 5, Stuck: 6 * time.Second},
		Join: Join{
			Listen: ":32380", Endpoints: []string{"east.mesh.example:32380"}, Mode: "native",
			PeerCACert: "/etc/weft/peer.crt", PeerCAKey: "/etc/weft/peer.key", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
		},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := ReadConfig(file + ".not"); err == nil || !strings.HasPrefix(err.Error(), "API server configuration: ") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestConfig_ReplicasTakeTurns(t *testing.T) {
	c := Config{Replicas: []Replica{{Name: "c"}, {Name: "a"}, {Name: "b"}}}
	for name, want := range map[string]time.Duration{"a": 0, "b": 30 * time.Second, "c": time.Minute} {
		c.Name = name
		if got := c.turn(); got != want {
			t.Errorf("%s waits %v, want %v", name, got, want)
		}
	}
	if got := (Config{Name: "alone"}).turn(); got != 0 {
		t.Errorf("a server alone waits %v", got)
	}
}

func TestConfig_SaysWhatIsWrong(t *testing.T) {
	for _, tt := range []struct{ was, is, want string }{
		{"name: east-1\n", "", "name: is missing"},
		{"cluster: east\n", "cluster: EAST\n", "cluster: "},
		{`":32379"`, "32379x", "listen: "},
		{"ca: /etc/weft/peers.crt\n", "", "ca: is missing"},
		{"etcd: /etc/weft/etcd.yaml\n", "", "etcd: is missing"},
		{"cluster-id: 300\n", "", "cluster-id: cluster id 0"},
		{"max-clusters: 511\n", "", "cluster-id: cluster id 300"},
		{"https://east-2.mesh.example:32379", "http://east-2:1", "is not an https URL"},
		{"- {name: east-1,", "- {name: east-3,", `"east-1" is not among them`},
		{"history-bytes: 1000000", "history-bytes: 0", "history: "},
		{"progress: 30s", "progress: 1ms", "progress: "},
		{"progress: 30s", "progress: soon", `"soon" is not a duration`},
		{"coalesce: 20ms", "coalesce: 1h", "coalesce: 1h0m0s is not between"},
		{"coalesce: 20ms", "coalesce: -1ms", "coalesce: "},
		{"stuck: 6s", "stuck: 0s", "limits: "},
		{"stuck: 6s", "stack: 6s", "stack"},
		{`listen: ":32380"`, "listen: 32380x", "join: listen: "},
		{"[east.mesh.example:32380]", "[east.mesh.example]", "join: endpoints: "},
		{"mode: native", "mode: geneve", "join: mode: "},
		{"  peer-ca-key: /etc/weft/peer.key\n", "", "join: peer-ca-cert and peer-ca-key"},
		{"[10.1.0.0/16]", "[10.1.0.1/16]", "join: pod-cidrs: "},
	} {
		_, err := parseConfig([]byte(strings.Replace(goodConfig, tt.was, tt.is, 1)))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q in place of %q: %v, want %q", tt.is, tt.was, err, tt.want)
		}
	}
	if _, err := New(Config{}, nil, prometheus.NewRegistry(), kvstoretest.Log(t)); err == nil {
		t.Error("a server without settings")
	}
}
