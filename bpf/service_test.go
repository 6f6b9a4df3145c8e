// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	protoTCP  = 6
	protoUDP  = 17
	protoSCTP = 132
)

var (
	vip4 = netip.MustParseAddr("10.96.0.10")
	vip6 = netip.MustParseAddr("fd00:96::10")
)

func vip(family int) netip.Addr {
	if family == 4 {
		return vip4
	}
	return vip6
}

// serve writes a service of TCP and UDP with backends on port 8080 behind port 80.
func (n *node) serve(id uint32, at netip.Addr, backends ...netip.Addr) {
	n.t.Helper()
	for i, b := range backends {
		n.put(n.Backends, BackendKey{Service: id, Slot: uint32(i)}, Backend{Address: Address(b), Port: Port(8080)})
	}
	for _, p := range []uint8{protoTCP, protoUDP} {
		n.put(n.Frontends, FrontendKey{Address: Address(at), Port: Port(80), Protocol: p},
			Frontend{Service: id, Count: uint32(len(backends))})
	}
	n.put(n.Frontends, FrontendKey{Address: Address(at)}, Frontend{})
}

func TestService_Reaches(t *testing.T) {
	for _, m := range modes() {
		t.Run(m.name, func(t *testing.T) {
			w := newWorld(t, m, 1500)
			client := w.a.pods[0]
			for _, family := range []int{4, 6} {
				for i, backend := range []struct {
					name string
					pod  *pod
				}{{"itself", client}, {"here", w.a.pods[1]}, {"there", w.b.pods[0]}} {
					t.Run(fmt.Sprintf("%s-ipv%d", backend.name, family), func(t *testing.T) {
						at := netip.AddrPortFrom(vip(family), 80)
						w.a.serve(uint32(10*family+i), at.Addr(), backend.pod.addr(family))
						echoTCP(t, backend.pod.ns, netip.AddrPortFrom(backend.pod.addr(family), 8080))
						echoUDP(t, backend.pod.ns, netip.AddrPortFrom(backend.pod.addr(family), 8080))
						try := func(what string, err error) {
							if err != nil {
								_, a := w.a.dropped()
								_, b := w.b.dropped()
								t.Errorf("%s: %v; drops here:%s; there:%s", what, err, a, b)
							}
						}
						try("tcp 1", callTCP(client.ns, at, 1))
						try("tcp 4M", callTCP(client.ns, at, 4<<20))
						try("udp 1", callUDP(client.ns, at, 1))
						try("udp 60000", callUDP(client.ns, at, 60000))
					})
				}
			}
			for _, n := range []*node{w.a, w.b} {
				if total, reasons := n.dropped(); total > 0 {
					t.Errorf("node %d dropped:%s", n.number, reasons)
				}
			}
		})
	}
}

// TestService_Errors: an error about a translated packet reaches the socket that sent it.
func TestService_Errors(t *testing.T) {
	for _, m := range modes() {
		t.Run(m.name, func(t *testing.T) {
			w := newWorld(t, m, 1500)
			client := w.a.pods[0]
			for _, family := range []int{4, 6} {
				for i, backend := range []*pod{client, w.a.pods[1], w.b.pods[0]} {
					t.Run(fmt.Sprintf("refused-by-%d-%d-ipv%d", backend.node.number, backend.slot, family), func(t *testing.T) {
						w.a.serve(uint32(10*family+i), vip(family), backend.addr(family))
						// Nobody listens at the backend's port.
						for _, at := range []netip.AddrPort{
							netip.AddrPortFrom(vip(family), 80), netip.AddrPortFrom(backend.addr(family), 9999),
						} {
							if backend == client && at.Port() == 9999 {
								continue
							}
							if err := callUDP(client.ns, at, 10); !errors.Is(err, syscall.ECONNREFUSED) {
								t.Errorf("udp to %s: %v, want connection refused", at, err)
							}
							if err := callTCP(client.ns, at, 10); !errors.Is(err, syscall.ECONNREFUSED) {
								t.Errorf("tcp to %s: %v, want connection refused", at, err)
							}
						}
					})
				}
				t.Run(fmt.Sprintf("no-service-ipv%d", family), func(t *testing.T) {
					before := w.a.drops(DropNoService, Egress)
					c, err := dial(client.ns, "udp", netip.AddrPortFrom(vip(family), 81))
					must(t, err)
					defer c.Close()
					c.Write([]byte("x"))
					if got := w.a.drops(DropNoService, Egress) - before; got != 1 {
						t.Errorf("drops: got %d, want 1", got)
					}
				})
			}
			for _, n := range []*node{w.a, w.b} {
				if total, reasons := n.dropped(); total > 2 {
					t.Errorf("node %d dropped:%s", n.number, reasons)
				}
			}
		})
	}
}

// TestMTU_TooBigIsAnswered: the endpoint's route says 1500, the path less.
func TestMTU_TooBigIsAnswered(t *testing.T) {
	for _, m := range modes() {
		t.Run(m.name, func(t *testing.T) {
			w := newWorld(t, m, 1500)
			client, far := w.a.pods[0], w.b.pods[0]
			want := 1400
			switch m.flags {
			case NodeTunnel:
				want -= 50
			case NodeTunnel | NodeIPv6:
				want -= 70
			}
			index := uint32(w.b.number)
			w.a.put(w.a.Nodes, index, Node{Ipv4: Address(w.b.addr4), Ipv6: Address(w.b.addr6), Flags: m.flags, Mtu: 1400})
			w.a.raise()
			for _, family := range []int{4, 6} {
				t.Run(fmt.Sprintf("ipv%d", family), func(t *testing.T) {
					at := netip.AddrPortFrom(far.addr(family), 8080)
					echoTCP(t, far.ns, at)
					echoUDP(t, far.ns, at)
					if got := pathMTU(t, client, at, family); got != want {
						t.Errorf("path MTU: got %d, want %d", got, want)
					}
					must(t, callTCP(client.ns, at, 1<<20))
					must(t, callUDP(client.ns, at, 1400))
				})
			}
		})
	}
}

// pathMTU is what a connected UDP socket learns by sending 1,380 bytes that may not be fragmented.
func pathMTU(t *testing.T, from *pod, at netip.AddrPort, family int) int {
	t.Helper()
	c, err := dial(from.ns, "udp", at)
	must(t, err)
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	must(t, err)
	level, discover, opt := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_MTU
	if family == 6 {
		level, discover, opt = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_MTU
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, discover, unix.IP_PMTUDISC_DO) })
	must(t, err)
	for deadline := time.Now().Add(patience); ; {
		_, werr := c.Write(make([]byte, 1380))
		if errors.Is(werr, unix.EMSGSIZE) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("1380 bytes are still sent; drops: %d", from.node.drops(DropTooBig, Egress))
		}
	}
	var mtu int
	raw.Control(func(fd uintptr) { mtu, err = unix.GetsockoptInt(int(fd), level, opt) })
	must(t, err)
	return mtu
}

// TestTTL_OverIsAnswered: the node is a router and says so.
func TestTTL_OverIsAnswered(t *testing.T) {
	w := newWorld(t, modes()[0], 1500)
	for _, family := range []int{4, 6} {
		for _, to := range []*pod{w.a.pods[1], w.b.pods[0]} {
			before := w.a.drops(DropTTL, Egress)
			if err := ping(w.a.pods[0].ns, to.addr(family), 56, "-t", "1"); err == nil {
				t.Errorf("ping %s with one hop: got an answer", to.addr(family))
			}
			if got := w.a.drops(DropTTL, Egress) - before; got != 1 {
				t.Errorf("drops: got %d, want 1", got)
			}
			must(t, ping(w.a.pods[0].ns, to.addr(family), 56, "-t", "2"))
		}
	}
}
