// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package embedded_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/kvstore/embedded"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// A member whose files are exchanged as soon as Start has returned serves all the same, and one whose
// files do not fit each other does not seem to start.
func TestStart_CertificateIsRead(t *testing.T) {
	ca := kvstoretest.NewCA(t, "ours")
	cert, _ := ca.Issue(t, "server", time.Hour)
	other, _ := ca.Issue(t, "other", time.Hour)
	srv := kvstoretest.Start(t, kvstoretest.Options{CA: ca, Name: "server"})
	good, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{[]byte("half a certificate"), good} {
		if err := os.WriteFile(cert, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ca.Issue(t, "server", time.Hour)
	srv.Put(srv.Client(), "a", "1")

	srv.Kill()
	cfg := srv.Server.Config()
	cfg.Dir, cfg.CertFile = filepath.Join(t.TempDir(), "etcd"), other
	s, err := embedded.Start(t.Context(), cfg)
	if err == nil {
		s.Kill()
	}
	if err == nil || !strings.Contains(err.Error(), "private key does not match") {
		t.Errorf("a member with the key of another certificate has started: %v", err)
	}
}
