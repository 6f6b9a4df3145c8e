// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dialledConn remembers the endpoint it was made for.
type dialledConn struct {
	net.Conn
	addr string // host:port of the endpoint, before names were resolved
}

// dialer connects to endpoints and records why it could not.
type dialer struct {
	timeout     time.Duration
	userTimeout time.Duration // how long sent data may stay unacknowledged
	aliases     map[string][]netip.Addr
	secure      bool
	problems    *problems
}

func (d *dialer) dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := d.connect(ctx, addr)
	if err != nil {
		// A connection that was given up on purpose says nothing about the endpoint.
		if !errors.Is(err, context.Canceled) {
			d.problems.set(addr, err)
		}
		return nil, err
	}
	if !d.secure {
		d.problems.clear(addr)
	}
	return &dialledConn{conn, addr}, nil
}

func (d *dialer) connect(ctx context.Context, addr string) (net.Conn, error) {
	nd := net.Dialer{Timeout: d.timeout, Control: d.control}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	aliases := d.aliases[host]
	if len(aliases) == 0 {
		return nd.DialContext(ctx, "tcp", addr)
	}
	var errs []error
	for _, ip := range aliases {
		conn, err := nd.DialContext(ctx, "tcp", net.JoinHostPort(ip.String(), port))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// control makes the kernel give a connection up at about the time the pings do; otherwise a
// write to a peer that vanished keeps the connection alive for many minutes.
func (d *dialer) control(_, _ string, raw syscall.RawConn) error {
	var serr error
	err := raw.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.userTimeout.Milliseconds()))
	})
	return errors.Join(err, serr)
}
