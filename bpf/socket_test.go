// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/cgroup"
	"github.com/weft-net/weft/internal/netns"
)

// The kernel has no test run for programs at sockets: they are attached to a cgroup that the test made
// and is in, and the test's own sockets meet them.

// form is a kind of socket with the addresses that it uses.
type form struct {
	name   string
	family int
	vip    netip.Addr
	// backend is the address of backend n, 1 to 3, as the maps have it.
	backend func(n int) netip.Addr
}

func backend4(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, 0, byte(n)}) }
func backend6(n int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd00:9::%d", n)) }

func forms() []form {
	return []form{
		{"ipv4", unix.AF_INET, vip4, backend4},
		{"ipv6", unix.AF_INET6, vip6, backend6},
		{"mapped", unix.AF_INET6, netip.AddrFrom16(vip4.As16()), backend4},
	}
}

// socketRig is a namespace with three backends that answer on port 8080, and the programs of a node.
type socketRig struct {
	t *testing.T
	*Objects
	sockets *Sockets
	ns      *netns.NS
	cookie  uint64
	form    form
}

// eachForm runs a test in a rig for each kind of socket. Nothing is served yet.
func eachForm(t *testing.T, f func(r *socketRig)) {
	t.Helper()
	dir, objects := cgroup.Join(t), load(t, small())
	for _, form := range forms() {
		t.Run(form.name, func(t *testing.T) { f(newSocketRig(t, dir, objects, form)) })
	}
}

func newSocketRig(t *testing.T, dir string, objects *Objects, form form) *socketRig {
	t.Helper()
	r := &socketRig{t: t, Objects: objects, form: form}
	var err error
	r.sockets, err = LoadSockets(small(), r.Objects)
	must(t, err)
	t.Cleanup(func() { r.sockets.Close() })
	for _, h := range r.sockets.Hooks() {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: dir, Attach: h.Attach, Program: h.Program})
		must(t, err)
		t.Cleanup(func() { must(t, l.Close()) })
	}
	r.ns, err = netns.New(fmt.Sprintf("sock%d", os.Getpid()))
	must(t, err)
	t.Cleanup(func() { must(t, r.ns.Delete()) })
	for n := 1; n <= 3; n++ {
		a := form.backend(n)
		must(t, r.ns.AddAddr("lo", netip.PrefixFrom(a, a.BitLen())))
		echoTCP(t, r.ns, netip.AddrPortFrom(a, 8080))
		echoUDP(t, r.ns, netip.AddrPortFrom(a, 8080))
		r.awaitLocal(a)
	}
	r.cookie, err = r.ns.Cookie()
	must(t, err)
	must(t, r.sockets.Namespaces.Put(r.cookie, Namespace{}))
	return r
}

// awaitLocal returns when an address can be reached: the kernel makes the route to one of IPv6 some time
// after the address.
func (r *socketRig) awaitLocal(a netip.Addr) {
	r.t.Helper()
	h, err := r.ns.Handle()
	must(r.t, err)
	defer h.Close()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		routes, err := h.RouteGet(a.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: no route: %v %v", a, routes, err)
		}
	}
}

// serve writes a service at port of the form's address with the backends of these numbers.
func (r *socketRig) serve(id uint32, port uint16, backends ...int) {
	r.t.Helper()
	for i, n := range backends {
		must(r.t, r.Backends.Put(BackendKey{Service: id, Slot: uint32(i)}, Backend{Address: Address(r.form.backend(n)), Port: Port(8080)}))
	}
	for _, p := range []uint8{protoTCP, protoUDP} {
		must(r.t, r.Frontends.Put(FrontendKey{Address: Address(r.form.vip), Port: Port(port), Protocol: p},
			Frontend{Service: id, Count: uint32(len(backends))}))
	}
}

// service is the address of a service, as sockets of the form write it.
func (r *socketRig) service(port uint16) netip.AddrPort { return netip.AddrPortFrom(r.form.vip, port) }

// backend is the address of a backend, as sockets of the form write it.
func (r *socketRig) backend(n int) netip.AddrPort {
	a := r.form.backend(n)
	if r.form.family == unix.AF_INET6 {
		a = netip.AddrFrom16(a.As16())
	}
	return netip.AddrPortFrom(a, 8080)
}

// socket is one of the test's sockets.
type socket struct {
	r  *socketRig
	fd int
}

// open makes a socket in a namespace that waits no longer than a busy machine needs.
func (r *socketRig) open(ns *netns.NS, kind int) socket {
	r.t.Helper()
	s := socket{r: r}
	must(r.t, ns.Do(func() (err error) {
		s.fd, err = unix.Socket(r.form.family, kind|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	r.t.Cleanup(func() { unix.Close(s.fd) })
	limit := unix.NsecToTimeval(int64(patience))
	must(r.t, unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
	must(r.t, unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit))
	return s
}

func (s socket) address(a netip.AddrPort) unix.Sockaddr {
	if s.r.form.family == unix.AF_INET {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

func (s socket) connect(to netip.AddrPort) error { return unix.Connect(s.fd, s.address(to)) }

func (s socket) peer() netip.AddrPort {
	s.r.t.Helper()
	sa, err := unix.Getpeername(s.fd)
	must(s.r.t, err)
	return addrPort(sa)
}

// send sends a datagram; to an address that is not valid it goes to the peer.
func (s socket) send(to netip.AddrPort) error {
	if !to.IsValid() {
		_, err := unix.Write(s.fd, []byte("question"))
		return err
	}
	return unix.Sendto(s.fd, []byte("question"), 0, s.address(to))
}

// ask sends and returns who answered.
func (s socket) ask(to netip.AddrPort) netip.AddrPort {
	s.r.t.Helper()
	must(s.r.t, s.send(to))
	buf := make([]byte, 64)
	n, from, err := unix.Recvfrom(s.fd, buf, 0)
	must(s.r.t, err)
	if got := string(buf[:n]); got != "question" {
		s.r.t.Errorf("%q came back", got)
	}
	return addrPort(from)
}

// rows are what the maps have of the socket: for each address of a kind the other one.
func (s socket) rows(kind uint16) map[netip.AddrPort]netip.AddrPort {
	s.r.t.Helper()
	cookie, err := unix.GetsockoptUint64(s.fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	must(s.r.t, err)
	found := map[netip.AddrPort]netip.AddrPort{}
	var key SocketKey
	var name SocketName
	rows := s.r.sockets.Sockets.Iterate()
	for rows.Next(&key, &name) {
		if key.Cookie == cookie && key.Kind == kind {
			found[netip.AddrPortFrom(Addr(key.Address), Port(key.Port))] = netip.AddrPortFrom(Addr(name.Address), Port(name.Port))
		}
	}
	must(s.r.t, rows.Err())
	return found
}

// counts sums what the programs counted.
func (r *socketRig) counts() (sum SocketCount) {
	r.t.Helper()
	var each []SocketCount
	must(r.t, r.sockets.SocketCounts.Lookup(uint32(0), &each))
	for _, c := range each {
		sum.Translated += c.Translated
		sum.Refused += c.Refused
	}
	return sum
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func TestSocket_TCP(t *testing.T) {
	eachForm(t, func(r *socketRig) {
		r.serve(1, 80, 2)
		s := r.open(r.ns, unix.SOCK_STREAM)
		must(r.t, s.connect(r.service(80)))
		if got := s.peer(); got != r.service(80) {
			r.t.Errorf("the peer's name is %s, want %s", got, r.service(80))
		}
		s.ask(netip.AddrPort{})
		if diff := cmp.Diff(map[netip.AddrPort]netip.AddrPort{unmap(r.backend(2)): unmap(r.service(80))},
			s.rows(SocketBackend), compareFrames, compareAddrPorts()); diff != "" {
			r.t.Errorf("rows of the socket (-want +got):\n%s", diff)
		}
		if got := r.counts(); got.Translated != 1 || got.Refused != 0 {
			r.t.Errorf("counts: %+v", got)
		}
		// A connection to the backend itself has the backend's name.
		direct := r.open(r.ns, unix.SOCK_STREAM)
		must(r.t, direct.connect(r.backend(2)))
		if got := direct.peer(); got != r.backend(2) {
			r.t.Errorf("the peer's name is %s, want %s", got, r.backend(2))
		}
	})
}

func compareAddrPorts() cmp.Option {
	return cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
}

func TestSocket_ConnectedUDP(t *testing.T) {
	eachForm(t, func(r *socketRig) {
		r.serve(1, 53, 1)
		s := r.open(r.ns, unix.SOCK_DGRAM)
		must(r.t, s.connect(r.service(53)))
		if got := s.peer(); got != r.service(53) {
			r.t.Errorf("the peer's name is %s, want %s", got, r.service(53))
		}
		if got := s.ask(netip.AddrPort{}); got != r.service(53) {
			r.t.Errorf("%s answers, want %s", got, r.service(53))
		}
		if len(s.rows(SocketService)) != 0 {
			r.t.Errorf("the socket is bound to a backend twice: %v", s.rows(SocketService))
		}
		// The same socket, connected to the backend itself.
		must(r.t, s.connect(r.backend(1)))
		if got := s.peer(); got != r.backend(1) {
			r.t.Errorf("the peer's name is %s, want %s", got, r.backend(1))
		}
		if got := s.ask(netip.AddrPort{}); got != r.backend(1) {
			r.t.Errorf("%s answers, want %s", got, r.backend(1))
		}
	})
}

func TestSocket_UnconnectedUDP(t *testing.T) {
	eachForm(t, func(r *socketRig) {
		r.serve(1, 53, 1, 2, 3)
		s := r.open(r.ns, unix.SOCK_DGRAM)
		for range 5 {
			if got := s.ask(r.service(53)); got != r.service(53) {
				r.t.Errorf("%s answers, want %s", got, r.service(53))
			}
		}
		if got := r.counts(); got.Translated != 1 {
			r.t.Errorf("counts: %+v, want one choice", got)
		}
		names := s.rows(SocketBackend)
		chosen := s.rows(SocketService)[unmap(r.service(53))]
		if len(names) != 1 || names[chosen] != unmap(r.service(53)) {
			r.t.Fatalf("the names %v do not fit the backend %s", names, chosen)
		}
		if got := s.ask(r.backend(1)); chosen != unmap(r.backend(1)) && got != r.backend(1) {
			r.t.Errorf("%s answers, want %s", got, r.backend(1))
		}
		// Its backend goes: another one is in the slot. The next datagram has another backend.
		gone := 0
		for n := 1; n <= 3; n++ {
			if unmap(r.backend(n)) == chosen {
				gone = n
			}
		}
		left := []int{1, 2, 3}
		left[gone-1] = gone%3 + 1
		r.serve(1, 53, left...)
		if got := s.ask(r.service(53)); got != r.service(53) {
			r.t.Errorf("%s answers, want %s", got, r.service(53))
		}
		if again := s.rows(SocketService)[unmap(r.service(53))]; again == chosen {
			r.t.Errorf("datagrams still go to %s, which is gone", chosen)
		}
	})
}

// TestSocket_TwoServices: answers tell two services with the same backends apart.
func TestSocket_TwoServices(t *testing.T) {
	eachForm(t, func(r *socketRig) {
		r.serve(1, 53, 1, 2)
		r.serve(2, 54, 1, 2)
		for range 5 {
			s := r.open(r.ns, unix.SOCK_DGRAM)
			must(r.t, s.send(r.service(53)))
			must(r.t, s.send(r.service(54)))
			answered := map[netip.AddrPort]bool{}
			for range 2 {
				_, from, err := unix.Recvfrom(s.fd, make([]byte, 64), 0)
				must(r.t, err)
				answered[addrPort(from)] = true
			}
			if !answered[r.service(53)] || !answered[r.service(54)] {
				r.t.Errorf("answers came from %v", answered)
			}
		}
		// With one backend for both it is who was asked last.
		r.serve(1, 53, 3)
		r.serve(2, 54, 3)
		s := r.open(r.ns, unix.SOCK_DGRAM)
		for _, port := range []uint16{53, 54, 53} {
			if got := s.ask(r.service(port)); got != r.service(port) {
				r.t.Errorf("%s answers, want %s", got, r.service(port))
			}
		}
	})
}

func TestSocket_NoBackend(t *testing.T) {
	eachForm(t, func(r *socketRig) {
		r.serve(1, 80)
		for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
			s := r.open(r.ns, kind)
			if err := s.connect(r.service(80)); !errors.Is(err, unix.ECONNREFUSED) {
				r.t.Errorf("connect: %v, want it refused", err)
			}
		}
		s := r.open(r.ns, unix.SOCK_DGRAM)
		if err := s.send(r.service(80)); !errors.Is(err, unix.ECONNREFUSED) {
			r.t.Errorf("send: %v, want it refused", err)
		}
		if got := r.counts(); got.Refused != 3 || got.Translated != 0 {
			r.t.Errorf("counts: %+v", got)
		}
	})
}

// TestSocket_Spread: every backend is chosen.
func TestSocket_Spread(t *testing.T) {
	eachForm(t, func(r *socketRig) {
		r.serve(1, 53, 1, 2, 3)
		chosen := map[netip.AddrPort]int{}
		for range 300 {
			s := r.open(r.ns, unix.SOCK_DGRAM)
			must(r.t, s.connect(r.service(53)))
			for b := range s.rows(SocketBackend) {
				chosen[b]++
			}
		}
		for n := 1; n <= 3; n++ {
			// 100 on average; less than 40 comes once in more than 10^13 runs.
			if got := chosen[unmap(r.backend(n))]; got < 40 {
				r.t.Errorf("backend %d was chosen %d times of 300: %v", n, got, chosen)
			}
		}
	})
}

// TestSocket_NotServed: sockets of other namespaces and backends of the other family are left to the
// packets' own translation.
func TestSocket_NotServed(t *testing.T) {
	eachForm(t, func(r *socketRig) {
		r.serve(1, 53, 1)
		must(r.t, r.ns.AddRoute(netns.Route{To: netip.PrefixFrom(unmap(r.service(53)).Addr(), unmap(r.service(53)).Addr().BitLen()), Link: "lo"}))
		untouched := func(why string) {
			r.t.Helper()
			s := r.open(r.ns, unix.SOCK_DGRAM)
			must(r.t, s.connect(r.service(53)))
			if len(s.rows(SocketBackend)) != 0 || s.peer() != r.service(53) {
				r.t.Errorf("%s: the socket was given %v", why, s.rows(SocketBackend))
			}
		}
		must(r.t, r.sockets.Namespaces.Delete(r.cookie))
		untouched("a namespace that is not ours")
		must(r.t, r.sockets.Namespaces.Put(r.cookie, Namespace{}))
		other := Address(backend6(1))
		if r.form.vip.Is6() && !r.form.vip.Is4In6() {
			other = Address(backend4(1))
		}
		must(r.t, r.Backends.Put(BackendKey{Service: 1}, Backend{Address: other, Port: Port(8080)}))
		untouched("a backend of the other family")
		var row SocketKey
		if err := r.sockets.Sockets.NextKey(nil, &row); !errors.Is(err, ebpf.ErrKeyNotExist) {
			r.t.Errorf("a row is left: %+v %v", row, err)
		}
	})
}
