// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"time"
)

// Summary is what people want to know of a certificate.
type Summary struct {
	Name        string    `json:"name"`
	Kind        string    `json:"kind"` // root, cluster CA, peer CA, server, client, member
	Issuer      string    `json:"issuer"`
	Hosts       []string  `json:"hosts,omitempty"`
	From        time.Time `json:"from"`
	Until       time.Time `json:"until"`
	Key         string    `json:"key"` // like ECDSA P-256
	Serial      string    `json:"serial"`
	Fingerprint string    `json:"fingerprint"` // SHA-256
}

// Summarize returns the summary of a certificate.
func Summarize(c *x509.Certificate) Summary {
	return Summary{
		Name: c.Subject.CommonName, Kind: kindOf(c), Issuer: c.Issuer.CommonName, Hosts: hosts(c),
		From: c.NotBefore.UTC(), Until: c.NotAfter.UTC(), Key: keyOf(c),
		Serial: fmt.Sprintf("%x", c.SerialNumber), Fingerprint: FingerprintOf(c).String(),
	}
}

// kindOf says what a certificate is for.
func kindOf(c *x509.Certificate) string {
	if role, err := roleOf(c); err == nil {
		return role.String()
	}
	server, client := mayBe(c, x509.ExtKeyUsageServerAuth), mayBe(c, x509.ExtKeyUsageClientAuth)
	switch {
	case server && client:
		return "member" // of an etcd
	case server:
		return "server"
	case client:
		return "client"
	}
	return "other"
}

// hosts are the names and addresses of a server.
func hosts(c *x509.Certificate) []string {
	var all []string
	all = append(all, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	return all
}

func keyOf(c *x509.Certificate) string {
	switch k := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	}
	return c.PublicKeyAlgorithm.String()
}
