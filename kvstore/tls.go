// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
)

// certificateFileError is a certificate file that cannot be used for a handshake.
type certificateFileError struct {
	reason Reason
	err    error
}

func (e *certificateFileError) Error() string { return e.err.Error() }
func (e *certificateFileError) Unwrap() error { return e.err }

// tlsConfig returns settings under which every handshake reads the files anew. The server is
// verified in VerifyConnection, because the pool of a tls.Config cannot be exchanged later. host is
// what the certificate must name: the state of a connection does not say it where it is an address.
func tlsConfig(cfg Config, host string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // verifyServer does it
		VerifyConnection:   func(cs tls.ConnectionState) error { return verifyServer(cfg.CAFile, host, cs) },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if cfg.CertFile == "" {
				return &tls.Certificate{}, nil
			}
			return clientCertificate(cfg.CertFile, cfg.KeyFile, time.Now())
		},
	}
}

func clientCertificate(certFile, keyFile string, now time.Time) (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, &certificateFileError{ReasonFiles, fmt.Errorf("read %s and %s: %w", certFile, keyFile, err)}
	}
	// The server would say so too, but only after the handshake and without the date.
	if leaf := cert.Leaf; leaf != nil && (now.After(leaf.NotAfter) || now.Before(leaf.NotBefore)) {
		return nil, &certificateFileError{ReasonClientExpired, fmt.Errorf("%s is valid from %s to %s",
			certFile, leaf.NotBefore.Format(time.RFC3339), leaf.NotAfter.Format(time.RFC3339))}
	}
	return &cert, nil
}

func verifyServer(caFile, host string, cs tls.ConnectionState) error {
	if host == "" {
		return errors.New("nobody said which name the server's certificate must have")
	}
	if len(cs.PeerCertificates) == 0 {
		return errors.New("the server shows no certificate")
	}
	var roots *x509.CertPool // nil: the system's
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return &certificateFileError{ReasonFiles, err}
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return &certificateFileError{ReasonFiles, fmt.Errorf("%s holds no certificate", caFile)}
		}
	}
	intermediates := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		intermediates.AddCert(c)
	}
	_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		DNSName:       host,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err
}

// transportCredentials are TLS credentials that record why a handshake failed.
type transportCredentials struct {
	credentials.TransportCredentials
	cfg      Config
	problems *problems
	shown    *shown
}

func newTransportCredentials(cfg Config, p *problems, s *shown) credentials.TransportCredentials {
	return &transportCredentials{credentials.NewTLS(tlsConfig(cfg, "")), cfg, p, s}
}

func (t *transportCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (
	net.Conn, credentials.AuthInfo, error,
) {
	host, _, err := net.SplitHostPort(authority)
	if err != nil {
		host = authority // without a port
	}
	// Credentials of their own for each handshake, because what is verified depends on who is
	// dialled.
	conn, info, err := credentials.NewTLS(tlsConfig(t.cfg, host)).ClientHandshake(ctx, authority, raw)
	if done, ok := info.(credentials.TLSInfo); ok && err == nil {
		t.shown.see(done.State.PeerCertificates)
	}
	d, ok := raw.(*dialledConn)
	if !ok {
		return conn, info, err
	}
	if err != nil {
		t.problems.set(d.addr, err)
		return conn, info, err
	}
	return &watchedConn{Conn: conn, addr: d.addr, problems: t.problems}, info, nil
}

func (t *transportCredentials) Clone() credentials.TransportCredentials {
	return &transportCredentials{t.TransportCredentials.Clone(), t.cfg, t.problems, t.shown}
}

// watchedConn sees what the server says of our certificate: with TLS 1.3 that comes after the
// handshake, as an error of the first read.
type watchedConn struct {
	net.Conn
	addr     string
	problems *problems
	answered atomic.Bool
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	switch {
	case err != nil && strings.Contains(err.Error(), "remote error: tls:"):
		c.problems.set(c.addr, err)
	case n > 0 && !c.answered.Load():
		c.answered.Store(true)
		c.problems.clear(c.addr)
	}
	return n, err
}
