// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/netns"
)

// ask sends a request from one namespace to an address and returns what the echo server there said.
func ask(ns *netns.NS, network string, to netip.AddrPort, size int) error {
	var conn net.Conn
	err := ns.Do(func() (err error) {
		conn, err = net.DialTimeout(network, to.String(), 5*time.Second)
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	return exchange(conn, size)
}

// exchange sends size bytes and wants them back.
func exchange(conn net.Conn, size int) error {
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	want := bytes.Repeat([]byte("weft"), size/4+1)[:size]
	if _, err := conn.Write(want); err != nil {
		return err
	}
	got := make([]byte, size)
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("the echo differs")
	}
	return nil
}

// echo runs a TCP and a UDP echo server on a port of a namespace until the test ends.
func echo(t *testing.T, ns *netns.NS, port uint16) {
	t.Helper()
	var tcp net.Listener
	var udp net.PacketConn
	err := ns.Do(func() (err error) {
		if tcp, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); err != nil {
			return err
		}
		udp, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(buf[:n], from)
		}
	}()
	served := serveTCP(tcp)
	t.Cleanup(func() {
		udp.Close()
		tcp.Close()
		<-done
		<-served
	})
}

// matrix checks that one namespace reaches the echo server at an address in every way.
func matrix(t *testing.T, from *netns.NS, to netip.Addr, port uint16) {
	t.Helper()
	dst := netip.AddrPortFrom(to, port)
	for _, check := range []struct {
		network string
		size    int
	}{{"tcp", 1}, {"tcp", 64 << 10}, {"udp", 1}, {"udp", 60000}} {
		if err := ask(from, check.network, dst, check.size); err != nil {
			t.Errorf("%s to %s, %s of %d bytes: %v", from.Name(), dst, check.network, check.size, err)
		}
	}
	for _, size := range []string{"1", "60000"} {
		if out, err := run(t, from, "ping", "-c1", "-W3", "-s", size, to.String()); err != nil {
			t.Errorf("%s to %s, ping of %s bytes: %v\n%s", from.Name(), to, size, err, out)
		}
	}
}
