// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/netns"
)

// patience is how long anything may take on a busy machine before it counts as lost.
const patience = 5 * time.Second

// echoTCP answers every connection with what it receives, until the test ends.
func echoTCP(t *testing.T, ns *netns.NS, at netip.AddrPort) {
	t.Helper()
	var listener net.Listener
	must(t, ns.Do(func() (err error) {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		listener, err = lc.Listen(context.Background(), "tcp", at.String())
		return err
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				io.Copy(c, c)
			}()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-done })
}

// echoUDP answers every datagram with itself, until the test ends.
func echoUDP(t *testing.T, ns *netns.NS, at netip.AddrPort) {
	t.Helper()
	var conn net.PacketConn
	must(t, ns.Do(func() (err error) {
		conn, err = net.ListenPacket("udp", at.String())
		return err
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			conn.WriteTo(buf[:n], from)
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
}

// dial opens a connection from a namespace; a local address that is not valid is the kernel's choice.
func dial(ns *netns.NS, network string, to netip.AddrPort) (c net.Conn, err error) {
	err = ns.Do(func() (err error) {
		d := net.Dialer{Timeout: patience}
		d.SetMultipathTCP(false)
		c, err = d.Dial(network, to.String())
		return err
	})
	return c, err
}

// callTCP sends size bytes on a new connection and wants them back.
func callTCP(ns *netns.NS, to netip.AddrPort, size int) error {
	c, err := dial(ns, "tcp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	return converse(c, size)
}

func converse(c net.Conn, size int) error {
	c.SetDeadline(time.Now().Add(patience))
	want := pattern(size)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		sent <- err
	}()
	got := make([]byte, size)
	_, err := io.ReadFull(c, got)
	if err != nil {
		c.Close()
	}
	if werr := <-sent; werr != nil {
		return werr
	}
	if err == nil && !bytes.Equal(got, want) {
		return fmt.Errorf("%d bytes came back changed", size)
	}
	return err
}

// callUDP sends one datagram and wants it back.
func callUDP(ns *netns.NS, to netip.AddrPort, size int) error {
	c, err := dial(ns, "udp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	return exchange(c, size)
}

func exchange(c net.Conn, size int) error {
	c.SetDeadline(time.Now().Add(patience))
	want := pattern(size)
	if _, err := c.Write(want); err != nil {
		return err
	}
	got := make([]byte, 65536)
	n, err := c.Read(got)
	if err == nil && !bytes.Equal(got[:n], want) {
		return fmt.Errorf("%d bytes came back as %d others", size, n)
	}
	return err
}

func pattern(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}

// ping sends one echo request and wants the reply.
func ping(ns *netns.NS, to netip.Addr, size int, args ...string) error {
	args = append(args, "-n", "-c", "1", "-W", "2", "-s", strconv.Itoa(size), to.String())
	out, err := ns.Command(context.Background(), "ping", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ping %s: %w\n%s", to, err, out)
	}
	return nil
}

// TestTraffic_Reaches sends everything from everybody to everybody, in all modes.
func TestTraffic_Reaches(t *testing.T) {
	for _, m := range modes() {
		t.Run(m.name, func(t *testing.T) {
			w := newWorld(t, m, 1500)
			near, far, client := w.a.pods[1], w.b.pods[0], w.a.pods[0]
			for _, family := range []int{4, 6} {
				to := []struct {
					name string
					ns   *netns.NS
					addr netip.Addr
				}{
					{"pod-here", near.ns, near.addr(family)},
					{"pod-there", far.ns, far.addr(family)},
					{"host-here", w.a.ns, w.a.host(client.addr(family))},
					{"host-there", w.b.ns, w.b.host(client.addr(family))},
				}
				from := []struct {
					name string
					ns   *netns.NS
				}{{"pod", client.ns}, {"host", w.a.ns}}
				for _, d := range to {
					at := netip.AddrPortFrom(d.addr, 8080)
					echoTCP(t, d.ns, at)
					echoUDP(t, d.ns, at)
					for _, f := range from {
						if f.name == "host" && d.name == "host-here" {
							continue
						}
						t.Run(fmt.Sprintf("%s-to-%s-ipv%d", f.name, d.name, family), func(t *testing.T) {
							try := func(what string, err error) {
								if err != nil {
									_, a := w.a.dropped()
									_, b := w.b.dropped()
									t.Errorf("%s: %v; drops here:%s; there:%s", what, err, a, b)
								}
							}
							try("ping", ping(f.ns, d.addr, 56))
							try("ping 60000", ping(f.ns, d.addr, 60000))
							try("tcp 1", callTCP(f.ns, at, 1))
							try("tcp 64k", callTCP(f.ns, at, 64<<10))
							try("tcp 4M", callTCP(f.ns, at, 4<<20))
							try("udp 1", callUDP(f.ns, at, 1))
							try("udp 60000", callUDP(f.ns, at, 60000))
						})
					}
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
