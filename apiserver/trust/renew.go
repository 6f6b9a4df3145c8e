// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Renewed is what became of a certificate that was looked at.
type Renewed struct {
	File  string
	Name  string
	Why   string // why it was renewed; empty: it was not due
	Until time.Time
}

// RenewOptions say how a certificate is renewed.
type RenewOptions struct {
	Now    bool          // also if it is not due
	NewKey bool          // with a new key: two files change, one after the other
	Life   time.Duration // 0: as before
}

// Renew signs a certificate anew if less than a third of its life is left or if an old authority has
// signed it: the same name, hosts and key, by the authority that signs now. Only the file of the
// certificate changes, in one step: no process meets a key that does not fit.
func (d *Dir) Renew(certFile string, o RenewOptions) (Renewed, error) {
	r := Renewed{File: certFile}
	chain, err := ReadCertificates(certFile)
	if err != nil {
		return r, err
	}
	leaf := chain[0]
	r.Name, r.Until = leaf.Subject.CommonName, leaf.NotAfter
	role, current, err := d.signer(chain)
	if err != nil {
		return r, fmt.Errorf("renew %s: %w", certFile, err)
	}
	switch {
	case !current:
		r.Why = "an old authority has signed it"
	case due(leaf):
		r.Why = "less than a third of its life is left"
	case o.Now:
		r.Why = "asked for"
	default:
		return r, nil
	}
	a, err := d.Authority(role)
	if err != nil {
		return r, fmt.Errorf("renew %s: %w", certFile, err)
	}
	key, pub := crypto.Signer(nil), leaf.PublicKey
	if o.NewKey {
		if key, err = NewKey(); err != nil {
			return r, err
		}
		pub = key.Public()
	}
	again, err := a.signLike(leaf, pub, lifeOf(leaf, chain, o.Life))
	if err != nil {
		return r, fmt.Errorf("renew %s: %w", certFile, err)
	}
	r.Until = again[0].NotAfter
	if key == nil {
		return r, WriteCertificates(certFile, again)
	}
	return r, WritePair(certFile, KeyFileOf(certFile), again, key)
}

// RenewAll is Renew for all certificates in Issued. It goes on after an error and returns them all.
func (d *Dir) RenewAll(o RenewOptions) (all []Renewed, errs []error) {
	files, errs := d.issued()
	for _, file := range files {
		r, err := d.Renew(file, o)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, r)
	}
	return all, errs
}

// issued are the certificate files in Issued, sorted. Whatever cannot be listed is an error.
func (d *Dir) issued() (files []string, errs []error) {
	entries, err := os.ReadDir(d.Issued())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, []error{fmt.Errorf("list certificates: %w", err)}
	}
	for _, e := range entries {
		if !e.IsDir() && strings.HasSuffix(e.Name(), ".crt") {
			files = append(files, filepath.Join(d.Issued(), e.Name()))
		}
	}
	return files, nil
}

// KeyFileOf is where the key of a certificate file lies that was made here: beside it.
func KeyFileOf(certFile string) string { return strings.TrimSuffix(certFile, ".crt") + ".key" }

// signer tells which role has signed a certificate, and whether its authority still signs.
func (d *Dir) signer(chain Chain) (role Role, current bool, err error) {
	for _, role := range []Role{RoleCluster, RolePeer, RoleRoot} {
		signs, err := d.signs(role)
		if err != nil {
			return 0, false, err
		}
		for _, cert := range signs {
			if chain[0].CheckSignatureFrom(cert) != nil {
				continue
			}
			now, err := d.certs(currentDir, role)
			return role, err == nil && now[0].Equal(cert), err
		}
	}
	return 0, false, fmt.Errorf("%q was signed by %q, which is no authority of %s", chain[0].Subject.CommonName, chain[0].Issuer.CommonName, d.path)
}

// signLike signs a key for the same name, hosts and use as a certificate.
func (a *Authority) signLike(leaf *x509.Certificate, pub crypto.PublicKey, life time.Duration) (Chain, error) {
	if !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
		return a.SignUser(pub, leaf.Subject.CommonName, life)
	}
	s := Server{Name: leaf.Subject.CommonName, Hosts: slices.Clone(leaf.DNSNames)}
	for _, ip := range leaf.IPAddresses {
		s.Hosts = append(s.Hosts, ip.String())
	}
	s.Etcd = slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	return a.SignServer(pub, s, life)
}

// lifeOf is how long a certificate is to be good for that takes the place of another: as long as
// that one was, unless it was cut short because its authority ended.
func lifeOf(leaf *x509.Certificate, chain Chain, asked time.Duration) time.Duration {
	before := leaf.NotAfter.Sub(leaf.NotBefore) - backdate
	cut := len(chain) > 1 && leaf.NotAfter.Equal(chain[1].NotAfter)
	switch {
	case asked > 0:
		return asked
	case before > 0 && !cut:
		return before
	case slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth):
		return ServerLife
	case isPeer(leaf.Subject.CommonName):
		return PeerLife
	}
	return UserLife
}

// due reports whether less than a third of a certificate's life is left.
func due(c *x509.Certificate) bool { return time.Until(c.NotAfter) < c.NotAfter.Sub(c.NotBefore)/3 }
