// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
)

// files are the certificates of a server and of who signs its clients. Every handshake reads them
// anew, so that they are rotated without a restart; while they cannot be read, because they are being
// replaced, the last that could be are in force.
type files struct {
	cfg    Config
	log    *slog.Logger
	banned func(*x509.Certificate) error // says why a good certificate is refused

	mu   sync.Mutex
	pair *tls.Certificate // nil: none was read yet
	pool *x509.CertPool   // nil: none was read yet
	told map[string]string
}

// tlsConfig returns settings of the files' certificates. A client is verified in VerifyConnection,
// which also runs when a session is resumed.
func (f *files) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:       tls.VersionTLS12,
		ClientAuth:       tls.RequireAnyClientCert,
		NextProtos:       []string{"h2"},
		GetCertificate:   func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.own() },
		VerifyConnection: f.verify,
	}
}

// read returns all that is wrong with the files, joined.
func (f *files) read() error {
	_, own := f.own()
	_, roots := f.roots()
	return errors.Join(own, roots)
}

// own returns the server's certificate.
func (f *files) own() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(f.cfg.CertFile, f.cfg.KeyFile)
	if err != nil {
		err = fmt.Errorf("read %s and %s: %w", f.cfg.CertFile, f.cfg.KeyFile, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return latest(f, "certificate", &f.pair, &pair, err)
}

// roots returns who signs the clients.
func (f *files) roots() (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(f.cfg.CAFile)
	if err == nil && !pool.AppendCertsFromPEM(pem) {
		err = fmt.Errorf("%s holds no certificate", f.cfg.CAFile)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return latest(f, "CA", &f.pool, pool, err)
}

// latest keeps what was read, or returns what was kept where it could not be. It says so once for
// each reason. The caller holds the lock.
func latest[T any](f *files, what string, kept **T, read *T, err error) (*T, error) {
	if err == nil {
		*kept = read
		delete(f.told, what)
		return read, nil
	}
	if *kept == nil {
		return nil, err
	}
	if f.told[what] != err.Error() {
		if f.told == nil {
			f.told = map[string]string{}
		}
		f.told[what] = err.Error()
		f.log.Warn("the last one that was good stays in force", "what", what, "error", err)
	}
	return *kept, nil
}

// verify checks that a client was signed, and has not left the mesh.
func (f *files) verify(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("the client shows no certificate")
	}
	roots, err := f.roots()
	if err != nil {
		return err
	}
	intermediates := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		intermediates.AddCert(c)
	}
	if _, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return err
	}
	return f.banned(cs.PeerCertificates[0])
}
