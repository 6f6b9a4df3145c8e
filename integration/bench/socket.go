// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The workers use raw system calls on blocking sockets. Go's network poller would add three system
// calls and a scheduler round to each operation, more than what is measured. RawSyscall also keeps
// the thread from telling the scheduler about every call; the workers run nothing beside their loop.

// ioTimeout ends a call on a path that lost a packet for good, in seconds.
const ioTimeout = 1

// address is a socket address as the kernel wants it.
type address struct {
	raw    [unix.SizeofSockaddrInet6]byte
	length uintptr
}

// newAddress encodes ap.
func newAddress(ap netip.AddrPort) address {
	var a address
	if ap.Addr().Is4() {
		binary.NativeEndian.PutUint16(a.raw[0:], unix.AF_INET)
		binary.BigEndian.PutUint16(a.raw[2:], ap.Port())
		ip := ap.Addr().As4()
		copy(a.raw[4:], ip[:])
		a.length = unix.SizeofSockaddrInet4
		return a
	}
	binary.NativeEndian.PutUint16(a.raw[0:], unix.AF_INET6)
	binary.BigEndian.PutUint16(a.raw[2:], ap.Port())
	ip := ap.Addr().As16()
	copy(a.raw[8:], ip[:])
	a.length = unix.SizeofSockaddrInet6
	return a
}

// family is the address family, for socket(2).
func (a *address) family() int { return int(binary.NativeEndian.Uint16(a.raw[0:])) }

// newSocket opens a blocking socket of kind SOCK_STREAM or SOCK_DGRAM whose calls end after
// ioTimeout.
func newSocket(a *address, kind int) (int, error) {
	fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, uintptr(a.family()), uintptr(kind|unix.SOCK_CLOEXEC), 0)
	if errno != 0 {
		return -1, fmt.Errorf("socket: %w", errno)
	}
	return int(fd), nil
}

// limit sets the timeouts of a socket.
func limit(fd int) error {
	tv := unix.Timeval{Sec: ioTimeout}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return err
	}
	return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
}

// noDelay turns Nagle's algorithm off.
func noDelay(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) }

func connect(fd int, a *address) syscall.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&a.raw[0])), a.length)
	return errno
}

func bind(fd int, a *address) syscall.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&a.raw[0])), a.length)
	return errno
}

func accept(fd int) (int, syscall.Errno) {
	conn, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), 0, 0, unix.SOCK_CLOEXEC, 0, 0)
	return int(conn), errno
}

func closeSocket(fd int) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// read returns 0 at the end of the stream.
func read(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errno
}

func write(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errno
}

// receiveFrom reads one datagram and keeps its sender in from.
func receiveFrom(fd int, b []byte, from *address) (int, syscall.Errno) {
	size := uint32(len(from.raw))
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		0, uintptr(unsafe.Pointer(&from.raw[0])), uintptr(unsafe.Pointer(&size)))
	from.length = uintptr(size)
	return int(n), errno
}

func sendTo(fd int, b []byte, to *address) syscall.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		0, uintptr(unsafe.Pointer(&to.raw[0])), to.length)
	return errno
}
