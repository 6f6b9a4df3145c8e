// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// pingID is the identifier of the echo requests of a check. One process sends them one after the
// other, so they are told apart by their sequence.
const pingID = 0x7765

// echoICMP sends one echo request of that many bytes and waits for its answer.
func echoICMP(ctx context.Context, to netip.Addr, size int) error {
	network, any, proto := "ip4:icmp", "0.0.0.0", 1
	var request, reply icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if to.Is6() {
		network, any, proto = "ip6:ipv6-icmp", "::", 58
		request, reply = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	c, err := icmp.ListenPacket(network, any)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if err := c.SetDeadline(time.Now().Add(patience / 3)); err != nil {
		return err
	}
	seq := int(time.Now().UnixNano()>>10) & 0xffff
	data := pattern(size)
	msg := icmp.Message{Type: request, Body: &icmp.Echo{ID: pingID, Seq: seq, Data: data}}
	// The kernel completes the checksum of ICMPv6, which covers the addresses.
	raw, err := msg.Marshal(nil)
	if err != nil {
		return err
	}
	if _, err := c.WriteTo(raw, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		m, err := icmp.ParseMessage(proto, buf[:n])
		if err != nil || m.Type != reply {
			continue
		}
		echo, ok := m.Body.(*icmp.Echo)
		if !ok || echo.ID != pingID || echo.Seq != seq {
			continue
		}
		if ip, ok := from.(*net.IPAddr); !ok || !ip.IP.Equal(net.IP(to.AsSlice())) {
			return errors.New("answered by " + from.String())
		}
		return same(echo.Data, data)
	}
}
