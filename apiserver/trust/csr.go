// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// maxCSR is more than any request for one name needs, also with a key of RSA 4096.
const maxCSR = 4 << 10

// NewKeyAndCSR makes a key and a request (DER) to sign it for a name.
func NewKeyAndCSR(name string) (*ecdsa.PrivateKey, []byte, error) {
	key, err := NewKey()
	if err != nil {
		return nil, nil, err
	}
	csr, err := NewCSR(name, key)
	return key, csr, err
}

// NewCSR makes a request (DER) to sign a key for a name.
func NewCSR(name string, key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		return nil, fmt.Errorf("certificate request for %q: %w", name, err)
	}
	return der, nil
}

// ParseCSR reads a request (DER) that somebody else made, and checks that its maker has the key. Only
// its name and its key are to be used: whoever signs decides everything else.
func ParseCSR(der []byte) (*x509.CertificateRequest, error) {
	if len(der) > maxCSR {
		return nil, fmt.Errorf("certificate request: it has %d bytes, more than %d", len(der), maxCSR)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	if err := checkPublicKey(csr.PublicKey); err != nil {
		return nil, fmt.Errorf("certificate request for %q: %w", csr.Subject.CommonName, err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request for %q: its maker does not have the key: %w", csr.Subject.CommonName, err)
	}
	return csr, nil
}

// requestBlock is the type of a request in PEM form.
const requestBlock = "CERTIFICATE REQUEST"

// ReadCSR is ParseCSR for a PEM file.
func ReadCSR(file string) (*x509.CertificateRequest, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read certificate request: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != requestBlock {
		return nil, fmt.Errorf("read certificate request: %s does not begin with one in PEM form", file)
	}
	csr, err := ParseCSR(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return csr, nil
}

// checkPublicKey refuses keys that are too weak to be signed.
func checkPublicKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize < 256 {
			return fmt.Errorf("the key's curve %s is too small; use P-256", k.Curve.Params().Name)
		}
		return nil
	case ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return fmt.Errorf("the RSA key has %d bits; use at least 2048, or better ECDSA P-256", k.N.BitLen())
		}
		return nil
	}
	return errors.New("the key is of a kind that cannot be signed; use ECDSA P-256")
}

// samePublicKey reports whether two public keys are one.
func samePublicKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
