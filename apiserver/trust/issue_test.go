// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto"
	"os"
	"path/filepath"
	"testing"
)

// TestRequest_KeyStays lets a key be signed that never leaves its directory, and renews it there.
func TestRequest_KeyStays(t *testing.T) {
	d, node := newDir(t), t.TempDir()
	csrFile, keyFile, err := Request(node, "node-a1")
	if err != nil {
		t.Fatal(err)
	}
	a := must(d.Authority(RoleCluster))(t)
	sign := func(pub crypto.PublicKey) (Chain, error) { return a.SignUser(pub, "node-a1", UserLife) }
	certFile, chain, err := IssueRequested(d.Issued(), "node-a1", csrFile, sign)
	if err != nil {
		t.Fatal(err)
	}
	pair := must(ReadPair(certFile, keyFile))(t)
	if !pair.Leaf.Equal(chain[0]) {
		t.Error("the certificate is not what was signed")
	}
	if _, err := os.Stat(KeyFileOf(certFile)); err == nil {
		t.Error("there is a key where it was signed")
	}
	if r := must(d.Renew(certFile, RenewOptions{Now: true}))(t); r.Why == "" {
		t.Error("not renewed")
	}
	must(ReadPair(certFile, keyFile))(t)

	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"again", second(issued(IssueRequested(d.Issued(), "node-a1", csrFile, sign))), "is there already"},
		{"another-name", second(issued(IssueRequested(d.Issued(), "node-a2", csrFile, sign))), `for "node-a1", not for "node-a2"`},
		{"no-request", second(issued(IssueRequested(d.Issued(), "node-a3", certFile, sign))), "does not begin with one"},
		{"no-file", second(issued(IssueRequested(d.Issued(), "node-a3", filepath.Join(node, "x"), sign))), "no such file"},
		{"request-again", third(Request(node, "node-a1")), "is there already"},
	} {
		t.Run(tt.name, func(t *testing.T) { wantError(t, tt.err, tt.want) })
	}
}

func issued(file string, _ Chain, err error) (string, error) { return file, err }

func third[A, B any](_ A, _ B, err error) error { return err }
