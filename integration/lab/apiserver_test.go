// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"crypto/x509"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/apiserver"
	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/kvstore"
)

// TestServers_AreTheOnlyWay writes the files of a lab with API servers and of one without: what agents
// connect to, and whose clients an etcd knows.
func TestServers_AreTheOnlyWay(t *testing.T) {
	for _, tt := range []struct {
		name      string
		servers   int
		family    Family
		endpoints []string // by which east reaches west
		etcdKnows bool     // east's certificate
	}{
		{"none", 0, Only4, []string{"https://192.168.102.2:2379"}, true},
		{"two", 2, Dual, []string{"https://192.168.102.4:32379", "https://192.168.102.5:32379"}, false},
		{"one-over-ipv6", 1, Only6, []string{"https://[fd77:102::4]:32379"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := DefaultOptions()
			o.Dir, o.Family, o.APIServers, o.Nodes = t.TempDir(), tt.family, tt.servers, 1
			o.Mirror = tt.servers > 1
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
			client, err := kvstore.ReadConfigFile(filepath.Join(east.Nodes[0].Dir, "clustermesh", "west"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.endpoints, client.Endpoints); diff != "" {
				t.Errorf("endpoints (-want +got):\n%s", diff)
			}
			if known := signed(t, client.CertFile, west.StoreCA); known != tt.etcdKnows {
				t.Errorf("the etcd knows a certificate of another cluster: %t, want %t", known, tt.etcdKnows)
			}
			if !signed(t, client.CertFile, west.CA) {
				t.Error("an API server does not know it")
			}
			if signed(t, client.CertFile, east.CA) {
				t.Error("it is of the cluster that shows it")
			}
			if len(west.APIServers) != tt.servers {
				t.Fatalf("%d API servers, want %d", len(west.APIServers), tt.servers)
			}
			for i := range west.APIServers {
				cfg, err := apiserver.ReadConfig(serverConfig(west, i))
				if err != nil {
					t.Fatal(err)
				}
				if len(cfg.Replicas) != tt.servers || cfg.Replicas[i].URLs[0] != tt.endpoints[i] || cfg.CAFile != west.CA {
					t.Errorf("API server %d: %+v", i, cfg)
				}
				if (cfg.MeshDir != "") != o.Mirror {
					t.Errorf("API server %d copies from %q", i, cfg.MeshDir)
				}
				if o.Mirror {
					peer, err := kvstore.ReadConfigFile(filepath.Join(cfg.MeshDir, "east"))
					if err != nil || len(peer.Endpoints) != tt.servers {
						t.Errorf("API server %d reads east by %+v: %v", i, peer, err)
					}
				}
			}
		})
	}
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
