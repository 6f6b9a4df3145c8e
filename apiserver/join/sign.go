// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"

	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/kvstore"
)

// request is what another cluster asks a certificate for.
type request struct {
	user string
	key  crypto.PublicKey
	hash string // SHA-256 of the key, in hexadecimal digits
}

// parseRequest reads a request, which must be for the one name that the cluster may have.
func parseRequest(csr []byte, cluster string) (request, error) {
	user := kvstore.UserRemoteCluster(cluster)
	parsed, err := trust.ParseCSR(csr)
	switch {
	case err != nil:
		return request{}, err
	case parsed.Subject.CommonName != user:
		return request{}, fmt.Errorf("certificate request for %q: cluster %s may be %q only", clip(parsed.Subject.CommonName, 64), cluster, user)
	}
	hash, err := keyHash(parsed.PublicKey)
	return request{user, parsed.PublicKey, hash}, err
}

func keyHash(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// certify signs a request by the authority for other clusters' readers, and makes sure that the other
// side will find it good: that it leads to one of the roots that it knows us by.
func (s Settings) certify(r request, roots ...*x509.Certificate) (trust.Chain, error) {
	authority, err := trust.ReadAuthority(s.PeerCAFile, s.PeerCAKeyFile)
	if err != nil {
		return nil, err
	}
	chain, err := authority.SignUser(r.key, r.user, trust.PeerLife)
	if err != nil {
		return nil, err
	}
	if err := trust.VerifyUser(chain, roots, r.user, r.key); err != nil {
		return nil, fmt.Errorf("%s does not lead to the root that %s leads to: %w", s.PeerCAFile, s.CertFile, err)
	}
	return chain, nil
}

// tryPeerCA signs a certificate for nobody: what is wrong with the authority is better known before
// somebody is on the line.
func (s Settings) tryPeerCA(cluster string, root *x509.Certificate) error {
	key, err := trust.NewKey()
	if err != nil {
		return err
	}
	_, err = s.certify(request{user: kvstore.UserRemoteCluster(cluster), key: key.Public()}, root)
	return err
}

// received checks the certificate that the other side made for us.
func received(ders [][]byte, root *x509.Certificate, user string, key crypto.Signer) (trust.Chain, error) {
	chain, err := trust.ParseDER(ders)
	if err != nil {
		return nil, err
	}
	return chain, trust.VerifyUser(chain, []*x509.Certificate{root}, user, key.Public())
}
