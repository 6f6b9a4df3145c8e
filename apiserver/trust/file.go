// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	secretMode = 0o600
	publicMode = 0o644
	dirMode    = 0o700
)

// ReadCertificates reads all certificates of a PEM file, the first one first.
func ReadCertificates(file string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	certs, err := ParsePEM(text)
	if err != nil {
		return nil, fmt.Errorf("read certificates of %s: %w", file, err)
	}
	return certs, nil
}

// ReadAuthority reads an authority from its certificate file, with what leads to its root, and its key
// file.
func ReadAuthority(certFile, keyFile string) (*Authority, error) {
	chain, err := ReadCertificates(certFile)
	if err != nil {
		return nil, err
	}
	key, err := ReadKey(keyFile)
	if err != nil {
		return nil, err
	}
	a, err := NewAuthority(chain, key)
	if err != nil {
		return nil, fmt.Errorf("read authority from %s and %s: %w", certFile, keyFile, err)
	}
	return a, nil
}

// ReadKey reads a private key from a PEM file.
func ReadKey(file string) (crypto.Signer, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	key, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("read key of %s: %w", file, err)
	}
	return key, nil
}

func parseKey(text []byte) (crypto.Signer, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("%d bytes are too many for a key", len(text))
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		// The errors of the parsers are not passed on: they may say more of a key than that it is none.
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, fmt.Errorf("it is encrypted; write it without a password, readable by its owner only")
		default:
			continue
		}
		signer, ok := key.(crypto.Signer)
		if err != nil || !ok {
			return nil, fmt.Errorf("the block %q holds no key that can sign", block.Type)
		}
		return signer, nil
	}
	return nil, fmt.Errorf("it holds no private key in PEM form")
}

// ReadPair reads a certificate with its key, as a connection shows it.
func ReadPair(certFile, keyFile string) (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("read %s and %s: %w", certFile, keyFile, err)
	}
	return pair, nil
}

// WriteKey writes a private key, readable by its owner only.
func WriteKey(file string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("write key %s: %w", file, err)
	}
	return writeFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), secretMode)
}

// WriteCertificates writes certificates, readable by everybody.
func WriteCertificates(file string, certs []*x509.Certificate) error {
	return writeFile(file, encodePEM(certs), publicMode)
}

// WritePair writes a key and then its certificate with what leads to the root. Who reads between the
// two finds a key that does not fit where there were others before: renew with the same key where a
// process runs.
func WritePair(certFile, keyFile string, chain Chain, key crypto.Signer) error {
	if err := WriteKey(keyFile, key); err != nil {
		return err
	}
	return WriteCertificates(certFile, chain)
}

// writeFile replaces a file in one step and makes its directory: who reads it sees the old one or the
// new one, also after a crash.
func writeFile(file string, data []byte, mode os.FileMode) error {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	f, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	defer os.Remove(f.Name()) // nothing is there after the rename
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}

// syncDir makes a rename outlive a crash of the machine.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	return err
}

// absent refuses where one of the files is there.
func absent(files ...string) error {
	for _, file := range files {
		if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is there already and is not replaced; 'weft cert renew %s' renews a certificate", file, file)
		}
	}
	return nil
}
