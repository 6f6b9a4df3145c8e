// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/stats"
)

// Slot is what a client did in one slot.
type Slot struct {
	Ops    uint64 // operations completed: round trips, connections, or chunks
	Bytes  uint64 // bytes sent; only for streams
	Errors uint64 // operations that failed
	NS     int64  // length of the slot, in nanoseconds
	P50    int64  // median latency of an operation, in nanoseconds
	P99    int64
	CPU    int64  // processor time of client and server together, in nanoseconds
	Error  string // the first error, for people
}

// client runs one workload against one address, or against many.
type client struct {
	workload Workload
	targets  []address // chosen at random where there are several
	fd       int       // the connection of workloads that keep one, or -1
	buf      []byte
	rnd      *rand.Rand
	latency  stats.Histogram
}

// newClient prepares a client for spread addresses that start at target.
func newClient(w Workload, target netip.AddrPort, spread int) *client {
	c := &client{workload: w, fd: -1, buf: make([]byte, 1), rnd: rand.New(rand.NewPCG(1, 2))}
	if w == Stream {
		c.buf = make([]byte, streamChunk)
	}
	ip := target.Addr()
	for range max(spread, 1) {
		c.targets = append(c.targets, newAddress(netip.AddrPortFrom(ip, target.Port())))
		ip = ip.Next()
	}
	return c
}

// slot repeats the workload's operation for a while, the first tenth of it uncounted so that caches
// and the processor's clock are warm.
func (c *client) slot(d time.Duration) Slot {
	var s Slot
	c.latency.Reset()
	base := time.Now()
	last, warm := time.Duration(0), d/10
	start := time.Duration(-1)
	for {
		n, err := c.once()
		now := time.Since(base)
		switch {
		case err != nil:
			s.Errors++
			if s.Error == "" {
				s.Error = err.Error()
			}
			c.disconnect()
			// A path that does not work at all must not keep the run.
			if s.Errors > s.Ops {
				s.NS = int64(now)
				return s
			}
		case start >= 0:
			s.Ops++
			s.Bytes += uint64(n)
			c.latency.Add(int64(now - last))
		case now >= warm:
			start = now
		}
		last = now
		if now >= d && start >= 0 {
			break
		}
	}
	s.NS = int64(last - start)
	s.P50, s.P99 = c.latency.Quantile(0.5), c.latency.Quantile(0.99)
	return s
}

// once does one operation and returns the bytes it sent.
func (c *client) once() (int, error) {
	switch c.workload {
	case TCPCRR:
		return 1, c.connectOnce()
	case Stream:
		if err := c.connect(unix.SOCK_STREAM); err != nil {
			return 0, err
		}
		n, errno := write(c.fd, c.buf)
		if errno != 0 {
			return 0, fmt.Errorf("write: %w", errno)
		}
		return n, nil
	case UDPRR:
		if err := c.connect(unix.SOCK_DGRAM); err != nil {
			return 0, err
		}
	default:
		if err := c.connect(unix.SOCK_STREAM); err != nil {
			return 0, err
		}
	}
	return 1, c.roundTrip(c.fd)
}

// roundTrip sends one byte and receives one.
func (c *client) roundTrip(fd int) error {
	if _, errno := write(fd, c.buf); errno != 0 {
		return fmt.Errorf("write: %w", errno)
	}
	n, errno := read(fd, c.buf)
	if errno != 0 {
		return fmt.Errorf("read: %w", errno)
	}
	if n == 0 {
		return errors.New("read: the server closed")
	}
	return nil
}

// connectOnce connects, does one round trip and closes.
func (c *client) connectOnce() error {
	a := &c.targets[0]
	if len(c.targets) > 1 {
		a = &c.targets[c.rnd.IntN(len(c.targets))]
	}
	fd, err := newSocket(a, unix.SOCK_STREAM)
	if err != nil {
		return err
	}
	defer closeSocket(fd)
	if errno := connect(fd, a); errno != 0 {
		return fmt.Errorf("connect: %w", errno)
	}
	return c.roundTrip(fd)
}

// connect makes the connection that later operations use, if there is none.
func (c *client) connect(kind int) error {
	if c.fd >= 0 {
		return nil
	}
	a := &c.targets[0]
	fd, err := newSocket(a, kind)
	if err != nil {
		return err
	}
	if err := limit(fd); err != nil {
		closeSocket(fd)
		return fmt.Errorf("set timeouts: %w", err)
	}
	if errno := connect(fd, a); errno != 0 {
		closeSocket(fd)
		return fmt.Errorf("connect: %w", errno)
	}
	if kind == unix.SOCK_STREAM {
		if err := noDelay(fd); err != nil {
			closeSocket(fd)
			return fmt.Errorf("no delay: %w", err)
		}
	}
	c.fd = fd
	return nil
}

// disconnect drops the connection, if there is one.
func (c *client) disconnect() {
	if c.fd >= 0 {
		closeSocket(c.fd)
		c.fd = -1
	}
}
