// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// VerifyUser checks a certificate that another cluster has signed for us: it is for our key and that
// user, a client's, in force, and leads to one of the roots.
func VerifyUser(chain Chain, roots []*x509.Certificate, user string, key crypto.PublicKey) error {
	err := verify(chain, roots, x509.ExtKeyUsageClientAuth, "")
	switch {
	case err != nil:
	case !samePublicKey(chain[0].PublicKey, key):
		err = errors.New("it is for another key")
	case chain[0].Subject.CommonName != user:
		err = fmt.Errorf("it is for user %q", chain[0].Subject.CommonName)
	}
	if err != nil {
		return fmt.Errorf("certificate for %q: %w", user, err)
	}
	return nil
}

// VerifyPinned checks what a server shows of which nothing is known but the fingerprint of its root
// and a name (MeshName of its cluster, for one that is joined): the root is among what it shows, and its
// certificate leads there and has the name. It returns the root.
func VerifyPinned(shown Chain, pin Fingerprint, name string) (*x509.Certificate, error) {
	i := slices.IndexFunc(shown, func(c *x509.Certificate) bool { return FingerprintOf(c) == pin })
	if i < 0 {
		return nil, fmt.Errorf("the server shows no certificate of the fingerprint %s: it is not the one that was meant", pin)
	}
	root := shown[i]
	if err := CheckRoot(root); err != nil {
		return nil, err
	}
	if err := verify(shown, []*x509.Certificate{root}, x509.ExtKeyUsageServerAuth, name); err != nil {
		return nil, fmt.Errorf("certificate of the server: %w", err)
	}
	return root, nil
}

// CheckRoot checks that a certificate can be the root of a cluster: signed by itself, an authority, in
// force.
func CheckRoot(cert *x509.Certificate) error {
	name := cert.Subject.CommonName
	switch now := time.Now(); {
	case !selfSigned(cert):
		return fmt.Errorf("%q is not a root: it is not signed by itself", name)
	case !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return fmt.Errorf("%q is not a root: it may not sign certificates", name)
	case now.After(cert.NotAfter):
		return fmt.Errorf("root %q has expired on %s", name, day(cert.NotAfter))
	case now.Before(cert.NotBefore):
		return fmt.Errorf("root %q is good from %s on: is the clock right?", name, day(cert.NotBefore))
	}
	return checkPublicKey(cert.PublicKey)
}

// FindRoot returns that certificate of a bundle to which a chain leads. During a rotation a bundle
// has more than one.
func FindRoot(chain Chain, bundle []*x509.Certificate) (*x509.Certificate, error) {
	chains, err := verified(chain, bundle, x509.ExtKeyUsageAny, "")
	if err != nil {
		return nil, err
	}
	return chains[0][len(chains[0])-1], nil
}

// WithRoot returns a server's certificate that shows its root too, for clients that know no more of
// it than a fingerprint, and that root. The bundle is what the server's clients trust.
func WithRoot(pair tls.Certificate, bundle []*x509.Certificate) (tls.Certificate, *x509.Certificate, error) {
	chain, err := ParseDER(pair.Certificate)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	root, err := FindRoot(chain, bundle)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("certificate %q: %w", chain[0].Subject.CommonName, err)
	}
	if FingerprintOf(chain[len(chain)-1]) != FingerprintOf(root) {
		pair.Certificate = append(slices.Clone(pair.Certificate), root.Raw)
	}
	return pair, root, nil
}

func verify(chain Chain, roots []*x509.Certificate, usage x509.ExtKeyUsage, name string) error {
	_, err := verified(chain, roots, usage, name)
	return err
}

func verified(chain Chain, roots []*x509.Certificate, usage x509.ExtKeyUsage, name string) ([][]*x509.Certificate, error) {
	if len(chain) == 0 {
		return nil, errors.New("there is none")
	}
	return chain[0].Verify(x509.VerifyOptions{
		Roots: Pool(roots), Intermediates: Pool(chain[1:]), KeyUsages: []x509.ExtKeyUsage{usage}, DNSName: name,
	})
}
