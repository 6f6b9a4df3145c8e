// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto"
	"encoding/pem"
	"fmt"
	"path/filepath"
)

// Issue writes a new key and a certificate for it into a directory, in files named name, that sign
// makes. Files that are there are not replaced.
func Issue(dir, name string, sign func(crypto.PublicKey) (Chain, error)) (certFile, keyFile string, chain Chain, err error) {
	certFile, keyFile = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	if err := absent(certFile, keyFile); err != nil {
		return "", "", nil, err
	}
	key, err := NewKey()
	if err != nil {
		return "", "", nil, err
	}
	if chain, err = sign(key.Public()); err != nil {
		return "", "", nil, err
	}
	return certFile, keyFile, chain, WritePair(certFile, keyFile, chain, key)
}

// IssueRequested writes a certificate for a request that somebody else has made, by the name it is for;
// the key stays where it is.
func IssueRequested(dir, name, csrFile string, sign func(crypto.PublicKey) (Chain, error)) (certFile string, chain Chain, err error) {
	certFile = filepath.Join(dir, name+".crt")
	if err := absent(certFile); err != nil {
		return "", nil, err
	}
	csr, err := ReadCSR(csrFile)
	if err != nil {
		return "", nil, err
	}
	if csr.Subject.CommonName != name {
		return "", nil, fmt.Errorf("%s is a request for %q, not for %q", csrFile, csr.Subject.CommonName, name)
	}
	if chain, err = sign(csr.PublicKey); err != nil {
		return "", nil, err
	}
	return certFile, chain, WriteCertificates(certFile, chain)
}

// Request writes a new key and a request to sign it, into a directory, in files named name.
func Request(dir, name string) (csrFile, keyFile string, err error) {
	csrFile, keyFile = filepath.Join(dir, name+".csr"), filepath.Join(dir, name+".key")
	if err := absent(csrFile, keyFile); err != nil {
		return "", "", err
	}
	key, der, err := NewKeyAndCSR(name)
	if err != nil {
		return "", "", err
	}
	if err := WriteKey(keyFile, key); err != nil {
		return "", "", err
	}
	return csrFile, keyFile, writeFile(csrFile, pem.EncodeToMemory(&pem.Block{Type: requestBlock, Bytes: der}), publicMode)
}
