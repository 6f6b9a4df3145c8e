// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// said are the causes of findings that are not good, and whether a text is among the findings.
func said(found []Finding, text string) (causes []Cause, has bool) {
	for _, f := range found {
		if f.Level != Good {
			causes = append(causes, f.Cause)
		}
		has = has || strings.Contains(f.Text, text)
	}
	return causes, has
}

// wantSaid checks the causes of findings, and that one of them says something.
func wantSaid(t *testing.T, found []Finding, text string, causes ...Cause) {
	t.Helper()
	got, has := said(found, text)
	if diff := cmp.Diff(causes, got); diff != "" || !has {
		t.Errorf("causes %s\nwant one that says %q among %+v", diff, text, found)
	}
	for _, f := range found {
		if f.Subject == "" || f.Text == "" || (f.Level == Good) != (f.Remedy == "") || (f.Level == Good) != (f.Cause == "") {
			t.Errorf("incomplete: %+v", f)
		}
	}
}

// TestExplain_BrokenChains breaks a chain in every way that people do.
func TestExplain_BrokenChains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, other, west := newHierarchy(t, "east"), newHierarchy(t, "east"), newHierarchy(t, "west")
		key := newKey(t)
		sign := func(h hierarchy, life time.Duration) Chain {
			return must(h.cluster.SignServer(key.Public(), Server{Name: "east-1", Cluster: "east", Hosts: []string{"192.0.2.1"}}, life))(t)
		}
		server := sign(h, ServerLife)
		client := must(h.cluster.SignUser(key.Public(), "node-a1", UserLife))(t)
		raw := func(a *Authority, template *x509.Certificate) Chain {
			return must(a.issue(template, key.Public(), 4*time.Hour))(t)
		}
		use := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		nameOnly := raw(h.cluster, &x509.Certificate{Subject: pkix.Name{CommonName: "192.0.2.1"}, ExtKeyUsage: use})
		byPeer := raw(h.peer, &x509.Certificate{Subject: pkix.Name{CommonName: "x"}, DNSNames: []string{MeshName("east")}, ExtKeyUsage: use})
		byLeaf := raw(&Authority{Cert: server[0], Role: RoleCluster, above: server[1:], key: key}, &x509.Certificate{Subject: pkix.Name{CommonName: "x"}, DNSNames: []string{MeshName("east")}, ExtKeyUsage: use})
		short := must(h.root.NewIntermediate("east", RoleCluster, time.Hour))(t)
		ended := hierarchy{h.root, short, nil}
		brief, briefly := sign(h, time.Minute), sign(ended, time.Hour)
		time.Sleep(2 * time.Hour)

		late := newHierarchy(t, "east")
		future := sign(late, ServerLife)                    // valid from an hour before now
		future[0].NotBefore = time.Now().Add(3 * time.Hour) // the verifier looks here, not at the bytes
		for _, tt := range []struct {
			name   string
			shown  Chain
			roots  []*x509.Certificate
			usage  x509.ExtKeyUsage
			host   string
			text   string
			causes []Cause
		}{
			{"good", server, h.roots(), x509.ExtKeyUsageServerAuth, "192.0.2.1", `server "east-1" is good until`, nil},
			{"good-mesh-name", server, append(west.roots(), h.roots()...), x509.ExtKeyUsageServerAuth, MeshName("east"), `signed by "weft east cluster CA" under "weft east root"`, nil},
			{"good-client", client, h.roots(), x509.ExtKeyUsageClientAuth, "", `client "node-a1" is good until`, nil},
			{"expired", brief, h.roots(), x509.ExtKeyUsageServerAuth, "", `it ("east-1") has expired on`, []Cause{CauseExpired}},
			{"not-yet", future, late.roots(), x509.ExtKeyUsageServerAuth, "", "in 3 hours by this machine's clock", []Cause{CauseNotYet}},
			{"wrong-name", server, h.roots(), x509.ExtKeyUsageServerAuth, "192.0.2.7", "is dialled as 192.0.2.7, and \"east-1\" is for east.mesh.cilium.io, 192.0.2.1 only", []Cause{CauseName}},
			{"common-name-only", nameOnly, h.roots(), x509.ExtKeyUsageServerAuth, "192.0.2.1", "names no host at all", []Cause{CauseName}},
			{"intermediate-missing", server[:1], h.roots(), x509.ExtKeyUsageServerAuth, "", `signed by "weft east cluster CA", which is neither shown with it nor trusted: the intermediate is missing`, []Cause{CauseIntermediate}},
			{"another-cluster", server, west.roots(), x509.ExtKeyUsageServerAuth, "", `signed by "weft east root", which is unknown here; ca.crt holds "weft west root"`, []Cause{CauseCA}},
			{"another-cluster-no-intermediate", server[:1], west.roots(), x509.ExtKeyUsageServerAuth, "", "which is unknown here", []Cause{CauseCA}},
			{"another-generation", server, other.roots(), x509.ExtKeyUsageServerAuth, "", "with another key", []Cause{CauseCA}},
			{"another-root-shown", append(slices.Clone(server), h.root.Cert), west.roots(), x509.ExtKeyUsageServerAuth, "", `leads to the root "weft east root"`, []Cause{CauseCA}},
			{"nothing-trusted", server, nil, x509.ExtKeyUsageServerAuth, "", "nothing is trusted", []Cause{CauseCA}},
			{"client-as-server", client, h.roots(), x509.ExtKeyUsageServerAuth, "", `"node-a1" is for a client and is used as that of a server`, []Cause{CauseUsage}},
			{"server-as-client", server, h.roots(), x509.ExtKeyUsageClientAuth, "", `"east-1" is for a server and is used as that of a client`, []Cause{CauseUsage}},
			{"peer-ca-signs-a-server", byPeer, h.roots(), x509.ExtKeyUsageServerAuth, "", `was signed by "weft east peer CA", which may not sign a server`, []Cause{CauseUsage}},
			{"signed-by-a-leaf", byLeaf, h.roots(), x509.ExtKeyUsageServerAuth, "", `was signed by "east-1", which is no authority`, []Cause{CauseUsage}},
			{"intermediate-expired", briefly, h.roots(), x509.ExtKeyUsageServerAuth, "", `the intermediate ("weft east cluster CA") has expired`, []Cause{CauseExpired, CauseExpired}},
			{"wrong-order", Chain{server[1], server[0]}, h.roots(), x509.ExtKeyUsageServerAuth, "", `what is shown, "east-1", is number 2`, []Cause{CauseOrder}},
			{"authority-only", h.cluster.Chain(), west.roots(), x509.ExtKeyUsageServerAuth, "", "no certificate of a server or client", []Cause{CauseUsage, CauseCA}},
			{"nothing", nil, h.roots(), x509.ExtKeyUsageServerAuth, "", "shows no certificate", []Cause{CauseFile}},
			{"two-reasons", brief, west.roots(), x509.ExtKeyUsageServerAuth, "192.0.2.7", "has expired", []Cause{CauseExpired, CauseName, CauseCA}},
		} {
			// No sub-tests in a bubble: the subject tells which it is.
			wantSaid(t, Explain(Shown{Subject: tt.name, Chain: tt.shown, Roots: tt.roots, RootsOf: "ca.crt", Usage: tt.usage, Host: tt.host}), tt.text, tt.causes...)
		}

		// A clock that is wrong makes everything wrong at once, and that is said.
		time.Sleep(RootLife + 24*time.Hour)
		wantSaid(t, Explain(Shown{Subject: "x.crt", Chain: server, Roots: h.roots(), Usage: x509.ExtKeyUsageServerAuth}), "the clock of this machine is the likelier reason", CauseExpired, CauseExpired, CauseExpired)
	})
}

func TestExplain_EndsSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHierarchy(t, "east")
		chain := must(h.cluster.SignUser(newKey(t).Public(), "node-a1", UserLife))(t)
		time.Sleep(UserLife - time.Hour)
		wantSaid(t, Explain(Shown{Subject: "x.crt", Chain: chain, Roots: h.roots(), Usage: x509.ExtKeyUsageClientAuth}), "(60 minutes)", CauseEnding)
	})
}

// FuzzExplain holds the doctor to the verifier: what is refused has a finding that is bad, and what is
// taken has none, but for an authority that is shown itself. The chains are made of certificates that exist, in every order.
func FuzzExplain(f *testing.F) {
	h, west := newHierarchy(f, "east"), newHierarchy(f, "west")
	pub := h.root.Cert.PublicKey
	all := []*x509.Certificate{h.root.Cert, h.cluster.Cert, h.peer.Cert, west.root.Cert, west.cluster.Cert}
	for _, h := range []hierarchy{h, west} {
		all = append(all, must(h.cluster.SignServer(pub, Server{Name: "s", Cluster: "east"}, ServerLife))(f)[0], must(h.peer.SignUser(pub, "remote", PeerLife))(f)[0])
	}
	f.Add([]byte{5, 1}, []byte{0}, true, true)
	f.Add([]byte{6, 2}, []byte{0, 3}, false, false)
	f.Add([]byte{1, 5, 0}, []byte{4}, true, false)
	f.Fuzz(func(t *testing.T, chain, roots []byte, server, host bool) {
		s := Shown{Subject: "x", Usage: x509.ExtKeyUsageClientAuth}
		for _, i := range chain[:min(len(chain), maxChain)] {
			s.Chain = append(s.Chain, all[int(i)%len(all)])
		}
		for _, i := range roots[:min(len(roots), 4)] {
			s.Roots = append(s.Roots, all[int(i)%len(all)])
		}
		if server {
			s.Usage = x509.ExtKeyUsageServerAuth
		}
		if host {
			s.Host = MeshName("east")
		}
		bad := slices.ContainsFunc(Explain(s), func(f Finding) bool { return f.Level == Bad })
		if err := verify(s.Chain, s.Roots, s.Usage, s.Host); (err != nil || s.Chain[0].IsCA) != bad {
			t.Errorf("the verifier says %v, the doctor %+v", err, Explain(s))
		}
	})
}
