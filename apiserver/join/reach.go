// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// reachTime bounds one attempt to reach a server.
const reachTime = 5 * time.Second

// reach checks that at least one of the API servers of a cluster answers, and that none that does is
// another's: its certificate leads to the cluster's root and names the host that is dialled.
func reach(ctx context.Context, endpoints []string, root *x509.Certificate) error {
	if len(endpoints) == 0 {
		return errors.New("it names no endpoints")
	}
	errs := make([]error, len(endpoints))
	var g errgroup.Group
	for i, e := range endpoints {
		g.Go(func() error {
			errs[i] = greet(ctx, e, root)
			return nil
		})
	}
	_ = g.Wait()
	good := false
	for _, err := range errs {
		var untrusted *tls.CertificateVerificationError
		if errors.As(err, &untrusted) {
			return err
		}
		good = good || err == nil
	}
	if good {
		return nil
	}
	return errors.Join(errs...)
}

// greet shakes hands with one server. It shows no certificate, which a server of TLS 1.2 refuses; by
// then it has shown its own.
func greet(ctx context.Context, endpoint string, root *x509.Certificate) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return fmt.Errorf("%s: %w", endpoint, err)
	}
	defer raw.Close()
	verified := false
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: u.Hostname(), RootCAs: trust.Pool([]*x509.Certificate{root}), NextProtos: []string{"h2"},
		VerifyConnection: func(tls.ConnectionState) error { verified = true; return nil },
	})
	if err := conn.HandshakeContext(ctx); err != nil && !verified {
		return fmt.Errorf("%s: %w", endpoint, err)
	}
	return nil
}

// heartbeat checks that a peer answers as itself with the files that it is reached with, and that its
// operator lives: the heartbeat hangs on the operator's lease.
func heartbeat(ctx context.Context, f files) error {
	cfg, err := kvstore.ReadConfigFile(f.client())
	if err != nil {
		return err
	}
	cfg.DialTimeout, cfg.RequestTimeout = reachTime, reachTime
	c, err := kvstore.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer c.Close()
	_, ok, err := c.Get(ctx, schema.ClusterConfigPrefix+f.peer)
	if err == nil && !ok {
		err = fmt.Errorf("cluster %s has no cluster-config yet: does its operator run", f.peer)
	}
	if err != nil {
		return err
	}
	if _, ok, err = c.Get(ctx, schema.HeartbeatKey); err == nil && !ok {
		err = fmt.Errorf("no heartbeat of cluster %s: does its operator run", f.peer)
	}
	return err
}

// awaitHeartbeat tries until a peer's heartbeat was seen or ctx ends; then it returns why it was not.
func awaitHeartbeat(ctx context.Context, f files) error {
	var why error
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := heartbeat(ctx, f)
		if err == nil {
			return nil
		}
		if why == nil || ctx.Err() == nil {
			why = err // that the time is over is no reason
		}
		select {
		case <-ctx.Done():
			return why
		case <-time.After(pause):
		}
	}
}
