// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/weft-net/weft/kvstore"
)

// file reads the client file.
func (w *walk) file(context.Context) outcome {
	cfg, err := kvstore.ReadConfigFile(w.cfg.File)
	if err != nil {
		return failed(err.Error(), "put the etcd client file of "+w.cfg.Cluster+" there, or join it: weft mesh join")
	}
	for _, f := range []string{cfg.CAFile, cfg.CertFile, cfg.KeyFile} {
		if f == "" {
			continue
		}
		if _, err := os.ReadFile(f); err != nil {
			return failed(err.Error(), "the client file names it: correct the name, or make it readable")
		}
	}
	cfg.DialTimeout, cfg.RequestTimeout = w.cfg.Timeout, w.cfg.Timeout
	w.client = cfg
	return good(fmt.Sprintf("%s: %s", w.cfg.File, strings.Join(cfg.Endpoints, ", ")))
}

// each tries something for every endpoint; one that works is enough, but the others are told of.
func (w *walk) each(todo string, try func(u *url.URL) (string, error)) outcome {
	var texts []string
	worked := false
	for _, e := range w.client.Endpoints {
		u, err := url.Parse(e)
		if err != nil {
			return failed(err.Error(), todo)
		}
		text, err := try(u)
		if err != nil {
			text = fmt.Sprintf("%s: %v", u.Host, err)
		}
		worked = worked || err == nil
		texts = append(texts, text)
	}
	if !worked {
		return failed(strings.Join(texts, "; "), todo)
	}
	return good(strings.Join(texts, "; "))
}

// addresses are those of a host, by the client file's aliases before the DNS.
func (w *walk) addresses(ctx context.Context, host string) (out []string, err error) {
	for _, a := range w.client.HostAliases[host] {
		out = append(out, a.String())
	}
	if len(out) > 0 {
		return out, nil
	}
	return net.DefaultResolver.LookupHost(ctx, host)
}

func (w *walk) dns(ctx context.Context) outcome {
	return w.each("correct the name in the client file, add it to the DNS, or give its addresses with cilium-host-aliases",
		func(u *url.URL) (string, error) {
			addrs, err := w.addresses(ctx, u.Hostname())
			if err != nil {
				return "", err
			}
			if len(addrs) == 1 && addrs[0] == u.Hostname() {
				return addrs[0] + " is an address", nil
			}
			return u.Hostname() + " is " + strings.Join(addrs, " "), nil
		})
}

// dial connects to an endpoint.
func (w *walk) dial(ctx context.Context, u *url.URL) (net.Conn, error) {
	addrs, err := w.addresses(ctx, u.Hostname())
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range addrs {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(a, u.Port()))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (w *walk) tcp(ctx context.Context) outcome {
	return w.each("see that "+w.cfg.Cluster+"'s API servers run, that the port is theirs, and that no firewall is between",
		func(u *url.URL) (string, error) {
			began := time.Now()
			conn, err := w.dial(ctx, u)
			if err != nil {
				return "", err
			}
			defer conn.Close()
			return fmt.Sprintf("%s answers after %s", conn.RemoteAddr(), time.Since(began).Round(100*time.Microsecond)), nil
		})
}

// tls looks at the server's certificate, and at ours. Whether the server takes ours it says only
// with the first request.
func (w *walk) tls(ctx context.Context) outcome {
	if !strings.HasPrefix(w.client.Endpoints[0], "https") {
		return good("not used: the endpoints are http")
	}
	const todo = "weft cert doctor explains a certificate"
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}
	if w.client.CAFile != "" {
		pem, err := os.ReadFile(w.client.CAFile)
		if err != nil {
			return failed(err.Error(), todo)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return failed(w.client.CAFile+" holds no certificate", todo)
		}
	}
	if w.client.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(w.client.CertFile, w.client.KeyFile)
		if err != nil {
			return failed(fmt.Sprintf("%s and %s: %v", w.client.CertFile, w.client.KeyFile, err), todo)
		}
		if left := time.Until(pair.Leaf.NotAfter); left <= 0 {
			return failed(fmt.Sprintf("our certificate %s expired on %s", w.client.CertFile, pair.Leaf.NotAfter.Format(time.DateTime)),
				"join again (weft mesh leave, weft mesh join), or have "+w.cfg.Cluster+" sign a new one")
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return w.each(todo, func(u *url.URL) (string, error) {
		raw, err := w.dial(ctx, u)
		if err != nil {
			return "", err
		}
		defer raw.Close()
		own := cfg.Clone()
		own.ServerName = u.Hostname()
		var shown *x509.Certificate
		own.VerifyConnection = func(cs tls.ConnectionState) error {
			shown = cs.PeerCertificates[0]
			return nil
		}
		if err := tls.Client(raw, own).HandshakeContext(ctx); err != nil {
			return "", err
		}
		text := fmt.Sprintf("%s shows %q, good for %d days", u.Host, shown.Subject.CommonName, days(shown.NotAfter))
		if len(own.Certificates) > 0 {
			leaf := own.Certificates[0].Leaf
			text += fmt.Sprintf("; ours is %q, good for %d days", leaf.Subject.CommonName, days(leaf.NotAfter))
		}
		return text, nil
	})
}

func days(t time.Time) int { return int(time.Until(t).Hours() / 24) }
