// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/weft-net/weft/kvstore/schema"
)

// How long certificates are good for where nobody says otherwise. A certificate never outlives who
// signed it.
const (
	RootLife         = 20 * 365 * 24 * time.Hour // changed on purpose, not because a date has come
	IntermediateLife = 5 * 365 * 24 * time.Hour
	ServerLife       = 30 * 24 * time.Hour  // servers' are renewed by a timer
	UserLife         = 90 * 24 * time.Hour  // the cluster's own clients
	PeerLife         = 365 * 24 * time.Hour // the readers of other clusters

	// MinPeerLife is the least that a peer gets: its certificate must outlive the outage that a mesh
	// is for.
	MinPeerLife = 90 * 24 * time.Hour
)

// backdate is how far the clock of who verifies may be behind that of who signs.
const backdate = time.Hour

// Role is what an authority may sign.
type Role int

const (
	// RoleRoot signs the other two. It is kept offline.
	RoleRoot Role = iota + 1
	// RoleCluster signs the cluster's own servers and users. Its etcd trusts it and no other.
	RoleCluster
	// RolePeer signs the readers of other clusters.
	RolePeer
)

func (r Role) String() string {
	switch r {
	case RoleRoot:
		return "root"
	case RoleCluster:
		return "cluster CA"
	case RolePeer:
		return "peer CA"
	}
	return "no authority"
}

// Authority is a certificate that signs others, with its key.
type Authority struct {
	Cert *x509.Certificate
	Role Role

	above Chain // between Cert and its root, without both; empty for those made here
	key   crypto.Signer
}

// NewRoot makes the root of a cluster.
func NewRoot(cluster string, life time.Duration) (*Authority, error) {
	if err := schema.CheckClusterName(cluster); err != nil {
		return nil, fmt.Errorf("root of cluster %q: %w", cluster, err)
	}
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:    pkix.Name{CommonName: "weft " + cluster + " root", Organization: []string{cluster}},
		KeyUsage:   x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:       true,
		MaxPathLen: 1,
	}
	cert, err := create(template, nil, key.Public(), key, life)
	if err != nil {
		return nil, fmt.Errorf("root of cluster %q: %w", cluster, err)
	}
	return &Authority{Cert: cert, Role: RoleRoot, key: key}, nil
}

// NewIntermediate lets a root sign an authority of a cluster for a role that is not that of a root.
func (a *Authority) NewIntermediate(cluster string, role Role, life time.Duration) (*Authority, error) {
	if a.Role != RoleRoot {
		return nil, fmt.Errorf("%s %q signs no authority; only a root does", a.Role, a.Cert.Subject.CommonName)
	}
	if err := schema.CheckClusterName(cluster); err != nil {
		return nil, fmt.Errorf("%s of cluster %q: %w", role, cluster, err)
	}
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	switch role {
	case RoleCluster:
		usages = append(usages, x509.ExtKeyUsageServerAuth)
	case RolePeer:
	default:
		return nil, fmt.Errorf("an intermediate cannot be a %s", role)
	}
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:        pkix.Name{CommonName: "weft " + cluster + " " + role.String(), Organization: []string{cluster}},
		KeyUsage:       x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:    usages,
		IsCA:           true,
		MaxPathLenZero: true,
	}
	cert, err := create(template, a.Cert, key.Public(), a.key, life)
	if err != nil {
		return nil, fmt.Errorf("%s of cluster %q: %w", role, cluster, err)
	}
	return &Authority{Cert: cert, Role: role, key: key}, nil
}

// NewAuthority is an authority of a chain, its own certificate first, and its key, whoever made them.
// What it may sign follows from the certificate.
func NewAuthority(chain Chain, key crypto.Signer) (*Authority, error) {
	if len(chain) == 0 {
		return nil, errors.New("no certificate")
	}
	cert := chain[0]
	role, err := roleOf(cert)
	if err != nil {
		return nil, err
	}
	if !samePublicKey(cert.PublicKey, key.Public()) {
		return nil, fmt.Errorf("the key does not fit the certificate of %q", cert.Subject.CommonName)
	}
	a := &Authority{Cert: cert, Role: role, key: key}
	for _, c := range chain[1:] {
		if !selfSigned(c) {
			a.above = append(a.above, c)
		}
	}
	return a, nil
}

// roleOf tells what a certificate may sign.
func roleOf(cert *x509.Certificate) (Role, error) {
	if !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return 0, fmt.Errorf("%q may not sign certificates: it is not that of an authority", cert.Subject.CommonName)
	}
	switch {
	case selfSigned(cert):
		return RoleRoot, nil
	case len(cert.ExtKeyUsage) == 1 && cert.ExtKeyUsage[0] == x509.ExtKeyUsageClientAuth:
		return RolePeer, nil
	}
	return RoleCluster, nil
}

// Chain is the authority's certificate with those between it and its root.
func (a *Authority) Chain() Chain {
	if a.Role == RoleRoot {
		return Chain{a.Cert}
	}
	return append(Chain{a.Cert}, a.above...)
}

// issue signs a certificate that signs no other, and returns it with what leads to the root.
func (a *Authority) issue(template *x509.Certificate, pub crypto.PublicKey, life time.Duration) (Chain, error) {
	if err := checkPublicKey(pub); err != nil {
		return nil, err
	}
	cert, err := create(template, a.Cert, pub, a.key, life)
	if err != nil {
		return nil, err
	}
	if a.Role == RoleRoot {
		return Chain{cert}, nil
	}
	return append(Chain{cert}, a.Chain()...), nil
}

// create completes a template and signs it. Without a parent it signs itself.
func create(template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer, life time.Duration) (*x509.Certificate, error) {
	if life <= 0 {
		return nil, fmt.Errorf("a life of %v: it must be positive", life)
	}
	now := time.Now()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("serial number: %w", err)
	}
	template.SerialNumber = serial.Add(serial, big.NewInt(1)) // 1 to 2^127: positive, at most 16 bytes
	template.NotBefore, template.NotAfter = now.Add(-backdate), now.Add(life)
	template.BasicConstraintsValid = true
	if parent == nil {
		parent = template
	} else {
		if now.After(parent.NotAfter) {
			return nil, fmt.Errorf("%q has expired on %s and signs nothing any more; make a new one with 'weft cert rotate'",
				parent.Subject.CommonName, day(parent.NotAfter))
		}
		if template.NotAfter.After(parent.NotAfter) {
			template.NotAfter = parent.NotAfter
		}
		if template.NotBefore.Before(parent.NotBefore) {
			template.NotBefore = parent.NotBefore
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		return nil, fmt.Errorf("sign %q: %w", template.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

// NewKey makes a private key for a certificate.
func NewKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

// day prints a time of a certificate, to the minute.
func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
