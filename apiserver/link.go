// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// errExpired refuses a client whose certificate was good when it connected and is not any more.
var errExpired = status.Error(codes.Unauthenticated, "the certificate has expired; connect with a new one")

// errConnections refuses a connection of a user that has too many.
var errConnections = errors.New("the user has too many connections")

// link is one connection. It belongs to a user and ends with the client's certificate.
type link struct {
	net.Conn // with TLS
	raw      net.Conn
	user     *user
	gate     *gate
	cert     *x509.Certificate
	expiry   *time.Timer
	over     sync.Once
}

// Close ends the connection in order.
func (l *link) Close() error {
	l.release()
	return l.Conn.Close()
}

// cut ends it at once, with all that its client has not read.
func (l *link) cut() {
	l.release()
	_ = l.raw.Close()
}

func (l *link) release() {
	l.over.Do(func() {
		l.expiry.Stop()
		l.gate.leave(l)
		l.user.closeLink()
	})
}

func (l *link) expired(now time.Time) bool { return now.After(l.cert.NotAfter) }

// linkInfo is what a call knows of its connection.
type linkInfo struct {
	credentials.TLSInfo
	link *link
}

// linkOf returns the connection of a call, nil for one that came without a certificate.
func linkOf(ctx context.Context) *link {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(linkInfo); ok {
			return info.link
		}
	}
	return nil
}

// handshake is TLS whose connections are links.
type handshake struct {
	credentials.TransportCredentials
	*Server
}

// ServerHandshake refuses a connection that its user may not have.
func (h handshake) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, auth, err := h.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	info, ok := auth.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 || info.State.PeerCertificates[0].Subject.CommonName == "" {
		return nil, nil, errors.New("the client's certificate has no name")
	}
	l := &link{Conn: conn, raw: raw, gate: &h.gate, cert: info.State.PeerCertificates[0]}
	l.user = h.users.named(l.cert.Subject.CommonName)
	if !l.user.openLink() {
		h.refused.Add(1)
		return nil, nil, fmt.Errorf("%q: %w", l.user.name, errConnections)
	}
	ready := make(chan struct{})
	l.expiry = time.AfterFunc(time.Until(l.cert.NotAfter), func() {
		<-ready
		l.cut()
	})
	close(ready)
	if err := h.gate.enter(l); err != nil {
		l.cut()
		return nil, nil, err
	}
	return l, linkInfo{info, l}, nil
}

// Clone returns a copy.
func (h handshake) Clone() credentials.TransportCredentials {
	return handshake{h.TransportCredentials.Clone(), h.Server}
}
