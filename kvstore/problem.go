// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Reason says in a few words why an etcd cannot be used, and by that what to do.
type Reason string

const (
	ReasonUnreachable       Reason = "unreachable"
	ReasonSilent            Reason = "connected, but no answer in time"
	ReasonServerExpired     Reason = "the server's certificate has expired or is not valid yet"
	ReasonServerCA          Reason = "the server's certificate is signed by a CA that trusted-ca-file does not hold"
	ReasonServerName        Reason = "the server's certificate does not name this endpoint"
	ReasonClientExpired     Reason = "our certificate has expired or is not valid yet"
	ReasonClientCA          Reason = "our certificate is signed by a CA that the server does not trust"
	ReasonClientCertificate Reason = "the server refuses our certificate"
	ReasonFiles             Reason = "a certificate file cannot be used"
	ReasonUnauthorised      Reason = "our certificate's name may not do this"
	ReasonFull              Reason = "the store is full (NOSPACE): it takes no row and no new lease until somebody makes room, run 'weft store status'"
	ReasonCorrupt           Reason = "the store's members do not hold the same data (CORRUPT): it takes no write until somebody replaces one, run 'weft store status'"
)

// EndpointError is an error of a request with the endpoint and the reason.
type EndpointError struct {
	Endpoint string // URL, or several with commas between
	Reason   Reason
	Err      error
}

func (e *EndpointError) Error() string {
	return fmt.Sprintf("%s: %s: %v", e.Endpoint, e.Reason, e.Err)
}

func (e *EndpointError) Unwrap() error { return e.Err }

// problems remembers why the last connection to each address failed. The RPC library reports
// most of it only as "deadline exceeded".
type problems struct {
	scheme string

	mu   sync.Mutex
	last map[string]problem // by host:port
}

type problem struct {
	reason Reason
	err    error
	at     time.Time
}

func (p *problems) set(addr string, err error) {
	reason := classify(err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last[addr] = problem{reason, err, time.Now()}
}

func (p *problems) clear(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.last, addr)
}

// newest returns the address whose connection failed last.
func (p *problems) newest() (addr string, found problem, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a, pr := range p.last {
		if !ok || pr.at.After(found.at) {
			addr, found, ok = a, pr, true
		}
	}
	return addr, found, ok
}

// explain turns the error of a request into an *EndpointError where there is more to say.
func (p *problems) explain(err error, endpoints []string) error {
	var known *EndpointError
	if err == nil || errors.Is(err, context.Canceled) || errors.As(err, &known) {
		return err
	}
	all := strings.Join(endpoints, ",")
	switch {
	case errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrUserEmpty),
		status.Code(err) == codes.PermissionDenied, status.Code(err) == codes.Unauthenticated:
		return &EndpointError{all, ReasonUnauthorised, err}
	case errors.Is(err, rpctypes.ErrNoSpace):
		return &EndpointError{all, ReasonFull, err}
	case errors.Is(err, rpctypes.ErrCorrupt):
		return &EndpointError{all, ReasonCorrupt, err}
	}
	if !transient(err) {
		return err
	}
	if addr, pr, ok := p.newest(); ok {
		return &EndpointError{p.scheme + "://" + addr, pr.reason, pr.err}
	}
	if errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded {
		return &EndpointError{all, ReasonSilent, err}
	}
	return &EndpointError{all, ReasonUnreachable, err}
}

// transient reports whether an error is about the connection rather than about the request.
func transient(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	var etcd rpctypes.EtcdError
	code := status.Code(err)
	if errors.As(err, &etcd) {
		code = etcd.Code()
	}
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

func classify(err error) Reason {
	var (
		invalid   x509.CertificateInvalidError
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		files     *certificateFileError
		path      *fs.PathError
		netErr    net.Error
	)
	switch {
	case errors.As(err, &files):
		return files.reason
	case errors.As(err, &path):
		return ReasonFiles
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return ReasonServerExpired
	case errors.As(err, &authority), errors.As(err, &invalid):
		return ReasonServerCA
	case errors.As(err, &host):
		return ReasonServerName
	}
	// Alerts of the other side have no exported type.
	text := err.Error()
	switch {
	case strings.Contains(text, "remote error: tls: expired certificate"):
		return ReasonClientExpired
	case strings.Contains(text, "remote error: tls: unknown certificate authority"):
		return ReasonClientCA
	case strings.Contains(text, "remote error: tls:"):
		return ReasonClientCertificate
	case errors.As(err, &netErr):
		return ReasonUnreachable
	}
	return ReasonUnreachable
}
