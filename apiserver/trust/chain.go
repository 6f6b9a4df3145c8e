// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

const (
	maxPEM   = 1 << 20 // bytes; more than any bundle of a cluster has
	maxChain = 16      // certificates of a chain from elsewhere
)

// Chain is a certificate and those that lead from it to a root, each signed by the next. The root
// is not part of what servers and clients show.
type Chain []*x509.Certificate

// PEM is the chain as it stands in a certificate file.
func (c Chain) PEM() []byte { return encodePEM(c) }

// DER is the chain as it goes into a message.
func (c Chain) DER() [][]byte {
	out := make([][]byte, len(c))
	for i, cert := range c {
		out[i] = cert.Raw
	}
	return out
}

// ParseDER reads a chain that came in a message.
func ParseDER(ders [][]byte) (Chain, error) {
	if len(ders) == 0 || len(ders) > maxChain {
		return nil, fmt.Errorf("a chain of %d certificates: want 1 to %d", len(ders), maxChain)
	}
	var chain Chain
	for i, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of the chain: %w", i+1, err)
		}
		chain = append(chain, cert)
	}
	return chain, nil
}

// ParsePEM reads all certificates of a file; other blocks in it, keys for instance, do not count. A file
// without any is an error.
func ParsePEM(text []byte) ([]*x509.Certificate, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("%d bytes are too many for certificates", len(text))
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("it holds no certificate in PEM form")
	}
	return certs, nil
}

func encodePEM(certs []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.Bytes()
}

// Fingerprint is the SHA-256 of a certificate.
type Fingerprint [sha256.Size]byte

// FingerprintOf returns the fingerprint of a certificate, for instance of a root that is pinned.
func FingerprintOf(cert *x509.Certificate) Fingerprint { return sha256.Sum256(cert.Raw) }

// String is the fingerprint in hexadecimal.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// Pool makes a pool of certificates.
func Pool(certs []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool
}

// selfSigned reports whether a certificate is a root.
func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(c) == nil
}
