// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"testing"
)

func TestParseCSR_Keys(t *testing.T) {
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		key  crypto.Signer
		want string
	}{
		{"p256", newKey(t), ""},
		{"p224", must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))(t), "too small"},
		{"ed25519", edwards, ""},
		{"rsa-2048", must(rsa.GenerateKey(rand.Reader, 2048))(t), ""},
		{"rsa-1024", must(rsa.GenerateKey(rand.Reader, 1024))(t), "1024 bits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			der := must(NewCSR("remote-west", tt.key))(t)
			_, err := ParseCSR(der)
			wantError(t, err, tt.want)
		})
	}
}

func TestParseCSR_Hostile(t *testing.T) {
	der := must(NewCSR("remote-west", newKey(t)))(t)
	forged := bytes.Replace(der, []byte("remote-west"), []byte("remote-east"), 1)
	if bytes.Equal(forged, der) {
		t.Fatal("nothing was forged")
	}
	_, err := ParseCSR(forged)
	wantError(t, err, "does not have the key")
	_, err = ParseCSR(make([]byte, maxCSR+1))
	wantError(t, err, "bytes, more than")
	_, err = ParseCSR(nil)
	wantError(t, err, "asn1")
	_, err = ParseCSR(append(der, 0))
	wantError(t, err, "trailing")
}

// FuzzParseCSR feeds requests of strangers: what is taken is signed by its own key.
func FuzzParseCSR(f *testing.F) {
	f.Add(must(NewCSR("remote-west", newKey(f)))(f))
	f.Add(must(asn1.Marshal(struct{ A, B int }{1, 2}))(f))
	f.Fuzz(func(t *testing.T, der []byte) {
		csr, err := ParseCSR(der)
		if err != nil {
			return
		}
		if err := csr.CheckSignature(); err != nil {
			t.Errorf("a request without its key is taken: %v", err)
		}
	})
}

// FuzzParsePEM reads bundles of strangers, and back what was read.
func FuzzParsePEM(f *testing.F) {
	h := newHierarchy(f, "east")
	f.Add([]byte(h.cluster.Chain().PEM()))
	f.Add(append(h.root.Chain().PEM(), h.peer.Chain().PEM()...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		certs, err := ParsePEM(text)
		if err != nil {
			return
		}
		again, err := ParsePEM(encodePEM(certs))
		if err != nil || len(again) != len(certs) {
			t.Errorf("%d certificates, read back %d, %v", len(certs), len(again), err)
		}
	})
}
