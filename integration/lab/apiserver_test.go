// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"crypto/x509"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/agent"
	"github.com/weft-net/weft/apiserver"
	"github.com/weft-net/weft/apiserver/join"
	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/kvstore"
)

// TestServers_AreTheOnlyWay writes the files of a lab with API servers and of one without: whom agents
// follow, whose readers an etcd knows, and that the clusters can join.
func TestServers_AreTheOnlyWay(t *testing.T) {
	for _, tt := range []struct {
		name      string
		servers   int
		family    Family
		endpoints []string // by which west is reached
		etcdKnows bool     // a reader of west
		joins     []string // where west is joined
	}{
		{"none", 0, Only4, []string{"https://192.168.102.2:2379"}, true, nil},
		{
			"two", 2, Dual, []string{"https://192.168.102.4:32379", "https://192.168.102.5:32379"}, false,
			[]string{"192.168.102.4:32380", "192.168.102.5:32380"},
		},
		{"one-over-ipv6", 1, Only6, []string{"https://[fd77:102::4]:32379"}, false, []string{"[fd77:102::4]:32380"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := DefaultOptions()
			o.Dir, o.Family, o.APIServers, o.Nodes = t.TempDir(), tt.family, tt.servers, 1
			l := plan(o)
			for i := range l.Clusters {
				if err := l.writeCluster(&l.Clusters[i]); err != nil {
					t.Fatal(err)
				}
			}
			east, west := &l.Clusters[0], &l.Clusters[1]
			if err := l.writeNode(*east, east.Nodes[0]); err != nil {
				t.Fatal(err)
			}
			if known := signed(t, west.RemoteCert, west.StoreCA); known != tt.etcdKnows {
				t.Errorf("the etcd knows a certificate of another cluster: %t, want %t", known, tt.etcdKnows)
			}
			if !signed(t, west.RemoteCert, west.CA) {
				t.Error("an API server does not know it")
			}
			if signed(t, west.RemoteCert, east.CA) {
				t.Error("another cluster knows it")
			}
			followed := agentMesh(t, east.Nodes[0])
			if tt.servers == 0 {
				client, err := kvstore.ReadConfigFile(filepath.Join(followed, "west"))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.endpoints, client.Endpoints); diff != "" {
					t.Errorf("endpoints (-want +got):\n%s", diff)
				}
			} else if names, err := l.peers(east); err != nil || len(names) > 0 {
				t.Errorf("before anybody has joined: %v, %v", names, err)
			}
			if len(west.APIServers) != tt.servers {
				t.Fatalf("%d API servers, want %d", len(west.APIServers), tt.servers)
			}
			for i := range west.APIServers {
				cfg, err := apiserver.ReadConfig(serverConfig(west, i))
				if err != nil {
					t.Fatal(err)
				}
				s := join.SettingsOf(cfg)
				if err := s.Validate(); err != nil {
					t.Errorf("API server %d cannot be joined: %v", i, err)
				}
				if diff := cmp.Diff(tt.endpoints, s.URLs); diff != "" {
					t.Errorf("urls of API server %d (-want +got):\n%s", i, diff)
				}
				if diff := cmp.Diff(tt.joins, cfg.Join.Endpoints); diff != "" || cfg.Join.Listen != tt.joins[i] {
					t.Errorf("API server %d is joined at %s; endpoints (-want +got):\n%s", i, cfg.Join.Listen, diff)
				}
				for _, n := range west.Nodes {
					for _, p := range n.PodCIDRs {
						if !slices.ContainsFunc(cfg.Join.PodCIDRs, func(r netip.Prefix) bool { return r.Overlaps(p) && r.Bits() < p.Bits() }) {
							t.Errorf("pod CIDR %s of %s is not in %v", p, n.Name, cfg.Join.PodCIDRs)
						}
					}
				}
				east, err := apiserver.ReadConfig(serverConfig(east, i))
				if err != nil || east.MeshDir == "" || followed != "" {
					t.Errorf("API server %d of east follows %q, its agents %q: %v", i, east.MeshDir, followed, err)
				}
			}
		})
	}
}

// agentMesh is the directory of client files of a node's agent.
func agentMesh(t *testing.T, n Node) string {
	t.Helper()
	cfg, err := agent.ReadConfig(n.Config, func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return cfg.ClusterMeshDir
}

// signed says whether who trusts the certificates of a file lets a client in.
func signed(t *testing.T, certFile, caFile string) bool {
	t.Helper()
	chain, err := trust.ReadCertificates(certFile)
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := trust.ReadCertificates(caFile)
	if err != nil {
		t.Fatal(err)
	}
	o := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range trusted {
		o.Roots.AddCert(c)
	}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err = chain[0].Verify(o)
	return err == nil
}

func TestServers_AreNamed(t *testing.T) {
	o := DefaultOptions()
	o.APIServers = 2
	l := plan(o)
	for name, want := range map[string]string{
		"east": "wl-lab-east-api1", "west/1": "wl-lab-west-api1", "west/2": "wl-lab-west-api2",
		"west/3": "no API server 3 of west; it has 2", "west/x": "no API server", "none": `no cluster "none"`,
	} {
		p, _, _, err := l.process("apiserver/" + name)
		if err != nil && !strings.Contains(err.Error(), want) || err == nil && p.Netns != want {
			t.Errorf("apiserver/%s: %v, %v; want %s", name, p, err, want)
		}
	}
	names := strings.Join(processNames(l), " ") + " "
	for _, want := range []string{"apiserver/east ", "apiserver/west/2 "} {
		if !strings.Contains(names, want) {
			t.Errorf("no %sin %s", want, names)
		}
	}
}
