// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestAuthority_SignsItsOwnKindOnly asks each authority for each kind of certificate.
func TestAuthority_SignsItsOwnKindOnly(t *testing.T) {
	h := newHierarchy(t, "east")
	pub := newKey(t).Public()
	server := func(a *Authority, s Server) error { _, err := a.SignServer(pub, s, ServerLife); return err }
	user := func(a *Authority, name string) error { _, err := a.SignUser(pub, name, PeerLife); return err }
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"cluster-server", server(h.cluster, Server{Name: "east-1", Cluster: "east"}), ""},
		{"cluster-etcd", server(h.cluster, Server{Name: "etcd-1", Hosts: []string{"10.0.0.1", "etcd-1.example"}, Etcd: true}), ""},
		{"cluster-wildcard", server(h.cluster, Server{Name: "x", Hosts: []string{"*.mesh.cilium.io", "::1"}}), ""},
		{"cluster-node", user(h.cluster, "node-a1"), ""},
		{"cluster-root-user", user(h.cluster, "root"), ""},
		{"cluster-remote", user(h.cluster, "remote"), ""}, // a mesh that reads etcd itself
		{"peer-remote", user(h.peer, "remote"), ""},
		{"peer-remote-west", user(h.peer, "remote-west"), ""},
		{"root-server", server(h.root, Server{Name: "east-1", Cluster: "east"}), ""}, // a small install
		{"root-user", user(h.root, "node-a1"), "signs authorities, not users"},
		{"peer-server", server(h.peer, Server{Name: "east-1", Cluster: "east"}), "other clusters only"},
		{"peer-administrator", user(h.peer, "root"), "other clusters only"},
		{"peer-operator", user(h.peer, "operator-east"), "other clusters only"},
		{"server-named-as-user", server(h.cluster, Server{Name: "root", Cluster: "east", Etcd: true}), "would be that user"},
		{"server-without-name", server(h.cluster, Server{Cluster: "east"}), "no name"},
		{"server-without-host", server(h.cluster, Server{Name: "x"}), "names no host"},
		{"server-url", server(h.cluster, Server{Name: "x", Hosts: []string{"https://x:2379"}}), "without scheme and port"},
		{"server-cluster-name", server(h.cluster, Server{Name: "x", Cluster: "East"}), "cluster"},
		{"user-unknown", user(h.cluster, "somebody"), "no such user"},
		{"user-bad-cluster", user(h.peer, "remote-West"), "no such user"},
		{"user-bad-node", user(h.cluster, "node-"), "no such user"},
	} {
		t.Run(tt.name, func(t *testing.T) { wantError(t, tt.err, tt.want) })
	}
}

// TestAuthority_IsBoundByItsCertificate signs what the package would refuse, as somebody does who has
// stolen the key of the peer CA.
func TestAuthority_IsBoundByItsCertificate(t *testing.T) {
	h := newHierarchy(t, "east")
	forged := func(a *Authority, usage x509.ExtKeyUsage, ca bool) Chain {
		template := &x509.Certificate{
			Subject: pkix.Name{CommonName: "forged"}, DNSNames: []string{MeshName("east")},
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
		}
		if ca {
			template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
		}
		return must(a.issue(template, a.Cert.PublicKey, time.Hour))(t)
	}
	if err := verify(forged(h.peer, x509.ExtKeyUsageServerAuth, false), h.roots(), x509.ExtKeyUsageServerAuth, MeshName("east")); err == nil {
		t.Error("the peer CA can sign a server")
	}
	// An authority that the peer CA has signed, and what that one signs.
	middle := forged(h.peer, x509.ExtKeyUsageClientAuth, true)
	sub := &Authority{Cert: middle[0], Role: RoleCluster, above: middle[1:], key: h.peer.key}
	if err := verify(forged(sub, x509.ExtKeyUsageClientAuth, false), h.roots(), x509.ExtKeyUsageClientAuth, ""); err == nil {
		t.Error("the peer CA can sign an authority")
	}
	// What an etcd trusts is the cluster CA: whom the peer CA has signed is not among its users.
	store := []*x509.Certificate{h.cluster.Cert}
	if err := verify(forged(h.peer, x509.ExtKeyUsageClientAuth, false), store, x509.ExtKeyUsageClientAuth, ""); err == nil {
		t.Error("the peer CA can sign a user of the etcd")
	}
	mine := must(h.cluster.SignUser(h.peer.Cert.PublicKey, "root", UserLife))(t)
	if err := verify(mine, store, x509.ExtKeyUsageClientAuth, ""); err != nil {
		t.Errorf("the cluster CA alone is no anchor of its users: %v", err)
	}
	// Another cluster's certificate of the same name is of no worth here.
	other := newHierarchy(t, "east")
	theirs := must(other.cluster.SignServer(h.peer.Cert.PublicKey, Server{Name: "x", Cluster: "east"}, ServerLife))(t)
	if err := verify(theirs, h.roots(), x509.ExtKeyUsageServerAuth, MeshName("east")); err == nil {
		t.Error("another cluster's authority is taken for ours")
	}
}

// TestCertificates_SayWhatTheyAreFor compares all that verifiers look at.
func TestCertificates_SayWhatTheyAreFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHierarchy(t, "east")
		pub := newKey(t).Public()
		server := must(h.cluster.SignServer(pub, Server{Name: "east-1", Cluster: "east", Hosts: []string{"API.example", "192.0.2.1", "fd00::1"}}, ServerLife))(t)
		etcd := must(h.cluster.SignServer(pub, Server{Name: "etcd-1", Hosts: []string{"192.0.2.2"}, Etcd: true}, ServerLife))(t)
		peer := must(h.peer.SignUser(pub, "remote-west", MinPeerLife))(t)
		long := must(h.cluster.SignUser(pub, "node-a1", 2*IntermediateLife))(t)
		type facts struct {
			Name, Issuer   string
			Hosts          []string
			Usages         []x509.ExtKeyUsage
			CA             bool
			Before, After  time.Duration
			Length, Serial bool // length of the chain is right; the serial number has 8 bytes and more
		}
		of := func(c *x509.Certificate, right bool) facts {
			f := facts{
				Name: c.Subject.CommonName, Issuer: c.Issuer.CommonName, Hosts: c.DNSNames, Usages: c.ExtKeyUsage, CA: c.IsCA,
				Before: time.Until(c.NotBefore), After: time.Until(c.NotAfter), Length: right, Serial: c.SerialNumber.BitLen() > 64,
			}
			for _, ip := range c.IPAddresses {
				f.Hosts = append(f.Hosts, ip.String())
			}
			return f
		}
		client, serve := x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth
		got := []facts{
			of(h.root.Cert, len(h.root.Chain()) == 1), of(h.cluster.Cert, len(h.cluster.Chain()) == 1), of(h.peer.Cert, true),
			of(server[0], len(server) == 2), of(etcd[0], len(etcd) == 2), of(peer[0], len(peer) == 2), of(long[0], true),
		}
		want := []facts{
			{"weft east root", "weft east root", nil, nil, true, -time.Hour, RootLife, true, true},
			{"weft east cluster CA", "weft east root", nil, []x509.ExtKeyUsage{client, serve}, true, -time.Hour, IntermediateLife, true, true},
			{"weft east peer CA", "weft east root", nil, []x509.ExtKeyUsage{client}, true, -time.Hour, IntermediateLife, true, true},
			{"east-1", "weft east cluster CA", []string{"east.mesh.cilium.io", "api.example", "192.0.2.1", "fd00::1"}, []x509.ExtKeyUsage{serve}, false, -time.Hour, ServerLife, true, true},
			{"etcd-1", "weft east cluster CA", []string{"192.0.2.2"}, []x509.ExtKeyUsage{serve, client}, false, -time.Hour, ServerLife, true, true},
			{"remote-west", "weft east peer CA", nil, []x509.ExtKeyUsage{client}, false, -time.Hour, MinPeerLife, true, true},
			{"node-a1", "weft east cluster CA", nil, []x509.ExtKeyUsage{client}, false, -time.Hour, IntermediateLife, true, true}, // no longer than who signed it
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// TestAuthority_Time lets authorities come to their end.
func TestAuthority_Time(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHierarchy(t, "east")
		pub := newKey(t).Public()
		_, err := h.peer.SignUser(pub, "remote-west", MinPeerLife-time.Hour)
		wantError(t, err, "90 days at least")
		_, err = h.cluster.SignUser(pub, "root", 0)
		wantError(t, err, "must be positive")
		time.Sleep(IntermediateLife - MinPeerLife + time.Hour)
		_, err = h.peer.SignUser(pub, "remote-west", PeerLife)
		wantError(t, err, "itself ends on")
		time.Sleep(MinPeerLife)
		_, err = h.cluster.SignUser(pub, "root", UserLife)
		wantError(t, err, "has expired on")
		_, err = h.root.NewIntermediate("east", RoleCluster, IntermediateLife)
		wantError(t, err, "")
	})
}

func TestNewAuthority_Refuses(t *testing.T) {
	h := newHierarchy(t, "east")
	key := newKey(t)
	leaf := must(h.cluster.SignUser(key.Public(), "root", UserLife))(t)
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"leaf", second(NewAuthority(leaf, key)), "not that of an authority"},
		{"foreign-key", second(NewAuthority(h.peer.Chain(), key)), "does not fit"},
		{"nothing", second(NewAuthority(nil, key)), "no certificate"},
		{"intermediate-of-intermediate", second(h.cluster.NewIntermediate("east", RolePeer, time.Hour)), "only a root"},
		{"second-root", second(h.root.NewIntermediate("east", RoleRoot, time.Hour)), "cannot be a root"},
		{"cluster-name", second(NewRoot("East", time.Hour)), "East"},
		{"cluster-name-below", second(h.root.NewIntermediate("", RolePeer, time.Hour)), "cluster"},
	} {
		t.Run(tt.name, func(t *testing.T) { wantError(t, tt.err, tt.want) })
	}
	for _, a := range []*Authority{h.root, h.cluster, h.peer} {
		again, err := NewAuthority(append(a.Chain(), h.root.Cert), a.key)
		if err != nil || again.Role != a.Role || len(again.Chain()) != 1 {
			t.Errorf("%s: read back as %v, %v", a.Role, again, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
