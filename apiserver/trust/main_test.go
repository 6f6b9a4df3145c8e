// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto"
	"crypto/x509"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hierarchy is a cluster's three authorities.
type hierarchy struct{ root, cluster, peer *Authority }

func newHierarchy(t testing.TB, name string) hierarchy {
	t.Helper()
	root := must(NewRoot(name, RootLife))(t)
	return hierarchy{
		root,
		must(root.NewIntermediate(name, RoleCluster, IntermediateLife))(t),
		must(root.NewIntermediate(name, RolePeer, IntermediateLife))(t),
	}
}

func (h hierarchy) roots() []*x509.Certificate { return []*x509.Certificate{h.root.Cert} }

// must ends a test on an error.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newKey(t testing.TB) crypto.Signer { return must(NewKey())(t) }

// wantError checks that an error says something; "" wants none.
func wantError(t testing.TB, err error, text string) {
	t.Helper()
	if (text == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want one with %q", err, text)
	}
}
