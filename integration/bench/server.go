// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// streamChunk is how much a stream reads and writes at once.
const streamChunk = 128 << 10

// serve answers one workload at an address until the process ends. ready is called once the socket
// listens.
func serve(w Workload, at netip.AddrPort, ready func()) error {
	a := newAddress(at)
	if w == UDPRR {
		return serveUDP(&a, ready)
	}
	fd, err := newSocket(&a, unix.SOCK_STREAM)
	if err != nil {
		return err
	}
	defer closeSocket(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fmt.Errorf("reuse address: %w", err)
	}
	// Accepted sockets inherit it.
	if err := noDelay(fd); err != nil {
		return fmt.Errorf("no delay: %w", err)
	}
	if errno := bind(fd, &a); errno != 0 {
		return fmt.Errorf("bind %s: %w", at, errno)
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return fmt.Errorf("listen %s: %w", at, err)
	}
	ready()
	buf := make([]byte, streamChunk)
	if w != Stream {
		buf = buf[:1]
	}
	for {
		conn, errno := accept(fd)
		if errno != 0 {
			if passing(errno) {
				continue
			}
			return fmt.Errorf("accept: %w", errno)
		}
		serveConn(conn, buf, w != Stream)
		closeSocket(conn)
	}
}

// serveConn reads until the client closes, and sends back what it reads if asked to.
func serveConn(conn int, buf []byte, echo bool) {
	for {
		n, errno := read(conn, buf)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 || n == 0 {
			return
		}
		if !echo {
			continue
		}
		if _, errno := write(conn, buf[:n]); errno != 0 {
			return
		}
	}
}

// serveUDP sends each datagram back to its sender.
func serveUDP(a *address, ready func()) error {
	fd, err := newSocket(a, unix.SOCK_DGRAM)
	if err != nil {
		return err
	}
	defer closeSocket(fd)
	if errno := bind(fd, a); errno != 0 {
		return fmt.Errorf("bind: %w", errno)
	}
	ready()
	var from address
	buf := make([]byte, 64)
	for {
		n, errno := receiveFrom(fd, buf, &from)
		if errno != 0 {
			if passing(errno) {
				continue
			}
			return fmt.Errorf("receive: %w", errno)
		}
		if errno := sendTo(fd, buf[:n], &from); errno != 0 && !passing(errno) {
			return fmt.Errorf("send: %w", errno)
		}
	}
}

// passing says whether an error concerns one client only, not the server.
func passing(errno syscall.Errno) bool {
	return errors.Is(errno, unix.EINTR) || errors.Is(errno, unix.ECONNABORTED) || errors.Is(errno, unix.ECONNREFUSED) ||
		errors.Is(errno, unix.EAGAIN)
}
