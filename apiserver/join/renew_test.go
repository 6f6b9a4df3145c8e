// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"crypto/ecdsa"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/apiserver"
	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// TestRenew has west's certificate for east renewed when its time has come and not before, and lets
// east announce a root before anything leads to it. Both certificates are good until the old one ends,
// and both are refused when west leaves.
func TestRenew(t *testing.T) {
	t.Parallel()
	east, west := newCluster(t, "east", 1, "10.1.0.0/24"), newCluster(t, "west", 2, "10.2.0.0/24")
	if _, err := west.join(t, east.token(t, Order{For: "west"}), nil); err != nil {
		t.Fatal(err)
	}
	f := files{west.settings.MeshDir, "east"}
	current := func() (leaf *x509.Certificate, roots int) {
		chain, err := trust.ReadCertificates(f.cert())
		must(t, err)
		ca, err := trust.ReadCertificates(f.ca())
		must(t, err)
		return chain[0], len(ca)
	}
	first, _ := current()
	must(t, west.server.renewWith(t.Context(), "east", time.Now()))
	if got, roots := current(); !got.Equal(first) || roots != 1 {
		t.Errorf("renewed before its time, or %d roots", roots)
	}

	next, err := trust.NewRoot("east", trust.RootLife)
	must(t, err)
	now, err := trust.ReadCertificates(east.settings.CAFile)
	must(t, err)
	must(t, trust.WriteCertificates(east.settings.CAFile, append(now, next.Cert)))
	must(t, west.server.renewWith(t.Context(), "east", time.Now().Add(trust.PeerLife/2)))
	second, roots := current()
	if second.Equal(first) || roots != 2 {
		t.Errorf("not renewed, or %d roots", roots)
	}
	if same, ok := first.PublicKey.(*ecdsa.PublicKey); !ok || !same.Equal(second.PublicKey) {
		t.Error("the key is another: for a moment it would not fit")
	}
	must(t, heartbeat(t.Context(), f))
	if p := west.wantState(t, "east", schema.PeerJoined); p.Root != string(now[0].Raw) {
		t.Error("the row has another root than the one that signs now")
	}
	must(t, trust.WriteCertificates(east.settings.CAFile, []*x509.Certificate{next.Cert, now[0]}))
	must(t, west.server.renewWith(t.Context(), "east", time.Now()))
	if p := west.wantState(t, "east", schema.PeerJoined); p.Root != string(next.Cert.Raw) {
		t.Error("the row has another root than the next one, which signs now")
	}
	must(t, heartbeat(t.Context(), f))
	if p := east.wantState(t, "west", schema.PeerJoined); len(p.Issued) != 2 {
		t.Errorf("certificates %+v", p.Issued)
	}

	for name, c := range map[string]struct {
		cert *x509.Certificate
		ask  apiserver.Renewal
		want string
	}{
		"no-peer": {&x509.Certificate{}, apiserver.Renewal{}, "is no peer"},
		"no-csr":  {second, apiserver.Renewal{CSR: []byte("x")}, "certificate request"},
		"other":   {second, apiserver.Renewal{CSR: newStranger(t, "north", 3, "10.3.0.0/16").csr}, `may be "remote-west" only`},
		"foreign": {strangerCert(t, east, "west"), apiserver.Renewal{CSR: newStranger(t, "west", 2, "10.3.0.0/16").csr}, "not one that the peer got"},
		"unknown": {strangerCert(t, east, "north"), apiserver.Renewal{CSR: newStranger(t, "north", 3, "10.3.0.0/16").csr}, "did not join with a token"},
	} {
		_, err := east.server.Renew(t.Context(), c.cert, c.ask)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
		}
	}

	if _, err := Leave(t.Context(), east.client, east.settings, "west"); err != nil {
		t.Fatal(err)
	}
	kvstoretest.Eventually(t, func() string {
		if west.server.renewWith(t.Context(), "east", time.Now().Add(trust.PeerLife/2)) == nil {
			return "who left is renewed"
		}
		return ""
	})
	if p := east.wantState(t, "west", schema.PeerLeft); len(p.Issued) != 2 || !p.Issued[0].Revoked || !p.Issued[1].Revoked {
		t.Errorf("certificates %+v", p.Issued)
	}
}

func TestAnnounced_NeedsAnOverlap(t *testing.T) {
	a, err := trust.NewRoot("east", trust.RootLife)
	must(t, err)
	b, err := trust.NewRoot("east", trust.RootLife)
	must(t, err)
	known := []*x509.Certificate{a.Cert}
	if _, err := announced([][]byte{b.Cert.Raw}, known); err == nil || !strings.Contains(err.Error(), "none of the roots") {
		t.Errorf("got %v", err)
	}
	if _, err := announced(nil, known); err == nil {
		t.Error("no roots at all were taken")
	}
	if got, err := announced([][]byte{a.Cert.Raw, b.Cert.Raw}, known); err != nil || len(got) != 2 {
		t.Errorf("got %d roots, %v", len(got), err)
	}
}

// strangerCert is a good certificate for a cluster that was not got by joining.
func strangerCert(t *testing.T, by *cluster, cluster string) *x509.Certificate {
	t.Helper()
	key, err := trust.NewKey()
	must(t, err)
	ca, err := trust.ReadAuthority(by.settings.PeerCAFile, by.settings.PeerCAKeyFile)
	must(t, err)
	chain, err := ca.SignUser(key.Public(), "remote-"+cluster, trust.PeerLife)
	must(t, err)
	return chain[0]
}
