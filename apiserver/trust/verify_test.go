// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestVerifyPinned_Server shows what a joiner meets at the address it was told.
func TestVerifyPinned_Server(t *testing.T) {
	h, other := newHierarchy(t, "east"), newHierarchy(t, "east")
	pub := newKey(t).Public()
	server := must(h.cluster.SignServer(pub, Server{Name: "east-1", Cluster: "east"}, ServerLife))(t)
	client := must(h.cluster.SignUser(pub, "operator-east", UserLife))(t)
	pin := FingerprintOf(h.root.Cert)
	full := func(c Chain, root *x509.Certificate) Chain { return append(append(Chain{}, c...), root) }
	for _, tt := range []struct {
		name  string
		shown Chain
		pin   Fingerprint
		host  string
		want  string
	}{
		{"right", full(server, h.root.Cert), pin, MeshName("east"), ""},
		{"root-not-shown", server, pin, MeshName("east"), "not the one that was meant"},
		{"another-root", full(server, other.root.Cert), pin, MeshName("east"), "not the one that was meant"},
		{"root-beside-a-foreign-chain", full(must(other.cluster.SignServer(pub, Server{Name: "x", Cluster: "east"}, ServerLife))(t), h.root.Cert), pin, MeshName("east"), "unknown authority"},
		{"another-name", full(server, h.root.Cert), pin, MeshName("west"), "not west.mesh.cilium.io"},
		{"intermediate-missing", Chain{server[0], h.root.Cert}, pin, MeshName("east"), "unknown authority"},
		{"a-client", full(client, h.root.Cert), pin, "", "key usage"},
		{"leaf-pinned", server, FingerprintOf(server[0]), MeshName("east"), "not a root"},
		{"nothing", nil, pin, MeshName("east"), "not the one that was meant"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root, err := VerifyPinned(tt.shown, tt.pin, tt.host)
			wantError(t, err, tt.want)
			if (err == nil) != (root != nil) {
				t.Errorf("root %v with error %v", root, err)
			}
		})
	}
}

// TestVerifyUser_Issued checks what another cluster hands out.
func TestVerifyUser_Issued(t *testing.T) {
	h := newHierarchy(t, "east")
	key, der, err := NewKeyAndCSR("remote-west")
	if err != nil {
		t.Fatal(err)
	}
	csr := must(ParseCSR(der))(t)
	if csr.Subject.CommonName != "remote-west" || !samePublicKey(csr.PublicKey, key.Public()) {
		t.Errorf("request for %q", csr.Subject.CommonName)
	}
	chain := must(h.peer.SignUser(csr.PublicKey, "remote-west", PeerLife))(t)
	again := must(ParseDER(chain.DER()))(t)
	if diff := cmp.Diff(chain.PEM(), again.PEM()); diff != "" {
		t.Error(diff)
	}
	server := must(h.cluster.SignServer(csr.PublicKey, Server{Name: "x", Cluster: "east"}, ServerLife))(t)
	for _, tt := range []struct {
		name  string
		chain Chain
		roots []*x509.Certificate
		user  string
		want  string
	}{
		{"right", again, h.roots(), "remote-west", ""},
		{"another-user", again, h.roots(), "remote-north", `for user "remote-west"`},
		{"another-root", again, newHierarchy(t, "east").roots(), "remote-west", "unknown authority"},
		{"intermediate-missing", again[:1], h.roots(), "remote-west", "unknown authority"},
		{"a-server", server, h.roots(), "x", "key usage"},
		{"nothing", nil, h.roots(), "remote-west", "there is none"},
	} {
		t.Run(tt.name, func(t *testing.T) { wantError(t, VerifyUser(tt.chain, tt.roots, tt.user, key.Public()), tt.want) })
	}
	wantError(t, VerifyUser(again, h.roots(), "remote-west", newKey(t).Public()), "another key")
}

// TestWithRoot_DuringARotation finds the root that a chain leads to among several of one name.
func TestWithRoot_DuringARotation(t *testing.T) {
	old, next := newHierarchy(t, "east"), newHierarchy(t, "east")
	bundle := append(old.roots(), next.roots()...)
	key := newKey(t)
	for _, h := range []hierarchy{old, next} {
		chain := must(h.cluster.SignServer(key.Public(), Server{Name: "east-1", Cluster: "east"}, ServerLife))(t)
		pair := tls.Certificate{Certificate: chain.DER(), PrivateKey: key}
		for range 2 { // the second time it has its root already
			var root *x509.Certificate
			var err error
			pair, root, err = WithRoot(pair, bundle)
			if err != nil || FingerprintOf(root) != FingerprintOf(h.root.Cert) || len(pair.Certificate) != 3 {
				t.Fatalf("root %v, %d certificates, %v", root, len(pair.Certificate), err)
			}
		}
		shown := must(ParseDER(pair.Certificate))(t)
		if _, err := VerifyPinned(shown, FingerprintOf(h.root.Cert), MeshName("east")); err != nil {
			t.Error(err)
		}
		_, _, err := WithRoot(pair, newHierarchy(t, "west").roots())
		wantError(t, err, "unknown authority")
	}
}

func TestCheckRoot_Refuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHierarchy(t, "east")
		wantError(t, CheckRoot(h.root.Cert), "")
		wantError(t, CheckRoot(h.cluster.Cert), "not signed by itself")
		early := *h.root.Cert
		early.NotBefore = time.Now().Add(time.Minute)
		wantError(t, CheckRoot(&early), "is the clock right?")
		time.Sleep(RootLife + time.Second)
		wantError(t, CheckRoot(h.root.Cert), "has expired")
	})
}
