// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// endOf reads until when the first certificate of a file is good.
func endOf(t *testing.T, file string) time.Time {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert.NotAfter
}

// TestClient_CertificateEnds: what a client knows of the certificates of its connection.
func TestClient_CertificateEnds(t *testing.T) {
	t.Parallel()
	ca := kvstoretest.NewCA(t, "ca")
	s := kvstoretest.Start(t, kvstoretest.Options{CA: ca})
	cfg := s.ClientConfig()
	c := kvstoretest.NewClient(t, cfg)
	if end := c.ServerCertificateEnd(); !end.IsZero() {
		t.Errorf("the server's certificate ends %v before anybody saw it", end)
	}
	if _, _, err := c.Get(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if end := c.ServerCertificateEnd(); time.Until(end) <= 0 {
		t.Errorf("the server's certificate ends %v, and it was good a moment ago", end)
	}
	end, err := cfg.CertificateEnd()
	if want := endOf(t, cfg.CertFile); err != nil || !end.Equal(want) {
		t.Errorf("ours ends %v (%v), want %v", end, err, want)
	}
}

func TestConfig_CertificateEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, key := kvstoretest.NewCA(t, "ca").Issue(t, "remote", time.Hour)
	certText, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	keyText, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		file string
		want time.Time
		bad  bool
	}{
		"none":          {"", time.Time{}, false},
		"missing":       {filepath.Join(dir, "nothing"), time.Time{}, true},
		"empty":         {file("empty", ""), time.Time{}, true},
		"not-one":       {file("key", string(keyText)), time.Time{}, true},
		"damaged":       {file("damaged", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), time.Time{}, true},
		"behind-a-key":  {file("both", string(keyText)+string(certText)), endOf(t, cert), false},
		"as-it-is-made": {cert, endOf(t, cert), false},
	} {
		end, err := kvstore.Config{CertFile: tt.file}.CertificateEnd()
		if !end.Equal(tt.want) || (err != nil) != tt.bad {
			t.Errorf("%s: ends %v (%v), want %v", name, end, err, tt.want)
		}
	}
}
