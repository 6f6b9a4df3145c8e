// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const everySetting = `
name: a
cluster: east
cluster-id: 300
max-clusters: 511
etcd: /etc/weft/etcd.yaml
etcd-admin: /etc/weft/admin.yaml
clustermesh-dir: /etc/weft/mesh
metrics: 127.0.0.1:9963
state-dir: /var/lib/weft-operator
defragment: true
leader-ttl: 20s
heartbeat: 30s
identity-gc: 16m
compact: 4m
keep: 11m
gone-after: 12h
`

func TestConfig_IsReadFromAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "operator.yaml")
	if err := os.WriteFile(file, []byte(everySetting), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Name: "a", Cluster: "east", ClusterID: 300, MaxClusters: 511, Etcd: "/etc/weft/etcd.yaml", EtcdAdmin: "/etc/weft/admin.yaml",
		MeshDir: "/etc/weft/mesh", Metrics: "127.0.0.1:9963", StateDir: "/var/lib/weft-operator", Defragment: true,
		LeaderTTL: 20 * time.Second, Retry: time.Second, Heartbeat: 30 * time.Second, IdentityGC: 16 * time.Minute,
		Compact: 4 * time.Minute, Keep: 11 * time.Minute, GoneAfter: 12 * time.Hour,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := ReadConfig(file + ".not"); err == nil || !strings.HasPrefix(err.Error(), "operator configuration: ") {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.WriteFile(file, []byte("name: a\ncluster: East\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadConfig(file); err == nil || !strings.HasPrefix(err.Error(), "operator configuration "+file+": cluster: ") {
		t.Errorf("a cluster that cannot be: %v", err)
	}
}

func TestConfig_SaysWhatIsWrongInOneOrder(t *testing.T) {
	want := `name: is missing; give one that no other operator of the cluster has
max-clusters: 0 is neither 255 nor 511
leader-ttl: 0s is not a positive duration
retry: 0s is not a positive duration
heartbeat: 0s is not a positive duration
identity-gc: 0s is not a positive duration
compact: 0s is not a positive duration
keep: 0s is not a positive duration
gone-after: 0s is not a positive duration`
	for range 20 { // an order that is not fixed shows
		if diff := cmp.Diff(want, Config{Cluster: "east"}.Validate().Error()); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	}
}
