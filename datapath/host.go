// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/netns"
)

// RouteProtocol marks the routes of weft ("proto 87" in ip route).
const RouteProtocol netlink.RouteProtocol = 87

// host is a network namespace with a netlink handle that acts in it from any thread.
type host struct {
	ns *netns.NS
	nl *netlink.Handle
}

// openHost opens the namespace at path, or the process's own if it is empty.
func openHost(path string) (_ *host, err error) {
	if path == "" {
		path = "/proc/self/ns/net"
	}
	ns, err := netns.OpenPath(path)
	if err != nil {
		return nil, err
	}
	nl, err := ns.Handle()
	if err != nil {
		ns.Close()
		return nil, err
	}
	return &host{ns: ns, nl: nl}, nil
}

func (h *host) Close() {
	h.nl.Close()
	h.ns.Close()
}

// link is LinkByName that says with nil, nil that there is none.
func (h *host) link(name string) (netlink.Link, error) {
	l, err := h.nl.LinkByName(name)
	if notFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find device %s: %w", name, err)
	}
	return l, nil
}

// linkAt is LinkByIndex that says with nil, nil that there is none.
func (h *host) linkAt(index int) (netlink.Link, error) {
	l, err := h.nl.LinkByIndex(index)
	if notFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find device %d: %w", index, err)
	}
	return l, nil
}

// awaitUp returns when a device can send. The kernel notices some time after its other end came up
// that it has a carrier; what is sent before is dropped without a trace.
func (h *host) awaitUp(index int) error {
	return await(func() error {
		link, err := h.nl.LinkByIndex(index)
		if err != nil {
			return fmt.Errorf("find device %d: %w", index, err)
		}
		if link.Attrs().OperState != netlink.OperUp {
			return fmt.Errorf("device %s: no carrier: %w", link.Attrs().Name, errNotYet)
		}
		return nil
	})
}

// awaitLocal returns when an address that was added is in force. Even without duplicate detection
// the kernel enters the route to an IPv6 address some time later.
func (h *host) awaitLocal(a netip.Addr) error {
	return await(func() error {
		routes, err := h.nl.RouteGet(a.AsSlice())
		if err != nil || len(routes) == 0 || routes[0].Type != unix.RTN_LOCAL {
			return fmt.Errorf("address %s: not in force: %w", a, errNotYet)
		}
		return nil
	})
}

var errNotYet = errors.New("timed out")

// await calls check until it says something else than errNotYet, for some seconds.
func await(check func() error) error {
	const patience = 5 * time.Second
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if err := check(); !errors.Is(err, errNotYet) || time.Now().After(deadline) {
			return err
		}
	}
}

func notFound(err error) bool {
	var gone netlink.LinkNotFoundError
	return errors.As(err, &gone) || errors.Is(err, unix.ENODEV)
}

// ipNet converts for the netlink library.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// hostPrefix is the prefix that holds only a.
func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// anywhere is the prefix of a default route.
func anywhere(is6 bool) netip.Prefix {
	if is6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// prefixOf converts from the netlink library; a missing destination is a default route.
func prefixOf(n *net.IPNet, is6 bool) netip.Prefix {
	if n == nil {
		return anywhere(is6)
	}
	a, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones)
}
