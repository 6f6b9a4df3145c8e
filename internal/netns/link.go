// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Handle opens a route netlink handle whose requests act on the namespace, from any thread. The
// caller closes it.
func (n *NS) Handle() (*netlink.Handle, error) {
	fd := n.Fd()
	if fd < 0 {
		return nil, fmt.Errorf("netlink handle of netns %s: closed", n.path)
	}
	h, err := netlink.NewHandleAt(vnetns.NsHandle(fd), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink handle of netns %s: %w", n.path, err)
	}
	return h, nil
}

// withHandle runs f with a handle that lives as long as f.
func (n *NS) withHandle(f func(*netlink.Handle) error) error {
	h, err := n.Handle()
	if err != nil {
		return err
	}
	defer h.Close()
	return f(h)
}

// withLink runs f with a device of the namespace.
func (n *NS) withLink(name string, f func(*netlink.Handle, netlink.Link) error) error {
	return n.withHandle(func(h *netlink.Handle) error {
		link, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("link %s in %s: %w", name, n.name, err)
		}
		if err := f(h, link); err != nil {
			return fmt.Errorf("link %s in %s: %w", name, n.name, err)
		}
		return nil
	})
}

// SetUp brings a device up.
func (n *NS) SetUp(name string) error {
	return n.withLink(name, func(h *netlink.Handle, l netlink.Link) error {
		return h.LinkSetUp(l)
	})
}

// SetDown takes a device down.
func (n *NS) SetDown(name string) error {
	return n.withLink(name, func(h *netlink.Handle, l netlink.Link) error {
		return h.LinkSetDown(l)
	})
}

// SetMTU sets the largest packet of a device, in bytes without the Ethernet header.
func (n *NS) SetMTU(name string, mtu int) error {
	return n.withLink(name, func(h *netlink.Handle, l netlink.Link) error {
		return h.LinkSetMTU(l, mtu)
	})
}

// Link says what the kernel knows of a device.
func (n *NS) Link(name string) (netlink.LinkAttrs, error) {
	var attrs netlink.LinkAttrs
	err := n.withLink(name, func(_ *netlink.Handle, l netlink.Link) error {
		attrs = *l.Attrs()
		return nil
	})
	return attrs, err
}

// AddLink makes a device of any kind and brings it up.
func (n *NS) AddLink(link netlink.Link) error {
	name := link.Attrs().Name
	return n.withHandle(func(h *netlink.Handle) error {
		if err := h.LinkAdd(link); err != nil {
			return fmt.Errorf("add link %s in %s: %w", name, n.name, err)
		}
		made, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("link %s in %s: %w", name, n.name, err)
		}
		if err := h.LinkSetUp(made); err != nil {
			return fmt.Errorf("set %s in %s up: %w", name, n.name, err)
		}
		return nil
	})
}

// AddBridge makes a bridge, brings it up and makes the named devices its ports.
func (n *NS) AddBridge(name string, ports ...string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := n.AddLink(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return err
	}
	for _, port := range ports {
		if err := n.AddPort(name, port); err != nil {
			return err
		}
	}
	return nil
}

// AddPort makes a device a port of a bridge.
func (n *NS) AddPort(bridge, port string) error {
	return n.withLink(bridge, func(h *netlink.Handle, master netlink.Link) error {
		l, err := h.LinkByName(port)
		if err != nil {
			return fmt.Errorf("port %s: %w", port, err)
		}
		if err := h.LinkSetMaster(l, master); err != nil {
			return fmt.Errorf("port %s: %w", port, err)
		}
		return nil
	})
}

// DeleteLink removes a device, and with one end of a veth pair the other.
func (n *NS) DeleteLink(name string) error {
	return n.withLink(name, func(h *netlink.Handle, l netlink.Link) error {
		return h.LinkDel(l)
	})
}

// deleteLinks removes all devices that can be removed.
func (n *NS) deleteLinks() error {
	return n.withHandle(func(h *netlink.Handle) error {
		links, err := h.LinkList()
		if err != nil {
			return fmt.Errorf("list links: %w", err)
		}
		for _, l := range links {
			// Loopback and hardware cannot be removed; a second end or a stacked device is gone
			// with the first.
			err := h.LinkDel(l)
			if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENODEV) {
				return fmt.Errorf("delete link %s: %w", l.Attrs().Name, err)
			}
		}
		return nil
	})
}

// AddAddr gives a device an address. An IPv6 address is in force some time after its device has
// come up, even without duplicate detection; see AwaitAddr.
func (n *NS) AddAddr(link string, addr netip.Prefix) error {
	return n.withLink(link, func(h *netlink.Handle, l netlink.Link) error {
		a := &netlink.Addr{IPNet: ipNet(addr)}
		if addr.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrAdd(l, a); err != nil {
			return fmt.Errorf("add address %s: %w", addr, err)
		}
		return nil
	})
}

// AwaitAddr returns when packets to an address that was added are taken, which for IPv6 the kernel
// sees to in the background. It gives up with the last answer after ten seconds.
func (n *NS) AwaitAddr(addr netip.Addr) error {
	const patience = 10 * time.Second
	return n.withHandle(func(h *netlink.Handle) error {
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			routes, err := h.RouteGet(addr.AsSlice())
			switch {
			case err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL:
				return nil
			case time.Now().After(deadline):
				return fmt.Errorf("address %s in %s: not in force after %s: %v", addr, n.name, patience, err)
			}
		}
	})
}

// Route is one route of a namespace. The zero value of a field means: not said.
type Route struct {
	To     netip.Prefix // destination; 0.0.0.0/0 and ::/0 are the default routes
	Via    netip.Addr   // next hop
	Link   string       // device
	Source netip.Addr   // preferred source address
	MTU    int          // largest packet, in bytes; 0: the device's
	OnLink bool         // the next hop is reached through Link although no address says so
}

// AddRoute adds a route, or replaces the one to the same destination.
func (n *NS) AddRoute(r Route) error {
	err := n.withHandle(func(h *netlink.Handle) error {
		route := &netlink.Route{Dst: ipNet(r.To), MTU: r.MTU}
		if r.Via.IsValid() {
			route.Gw = r.Via.AsSlice()
		} else {
			route.Scope = netlink.SCOPE_LINK
		}
		if r.Source.IsValid() {
			route.Src = r.Source.AsSlice()
		}
		if r.OnLink {
			route.Flags = int(netlink.FLAG_ONLINK)
		}
		if r.Link != "" {
			l, err := h.LinkByName(r.Link)
			if err != nil {
				return fmt.Errorf("link %s: %w", r.Link, err)
			}
			route.LinkIndex = l.Attrs().Index
		}
		return h.RouteReplace(route)
	})
	if err != nil {
		return fmt.Errorf("route to %s in %s: %w", r.To, n.name, err)
	}
	return nil
}

// AddNeighbour makes a permanent neighbour entry.
func (n *NS) AddNeighbour(link string, addr netip.Addr, mac net.HardwareAddr) error {
	return n.withLink(link, func(h *netlink.Handle, l netlink.Link) error {
		err := h.NeighSet(&netlink.Neigh{
			LinkIndex:    l.Attrs().Index,
			IP:           addr.AsSlice(),
			HardwareAddr: mac,
			State:        netlink.NUD_PERMANENT,
		})
		if err != nil {
			return fmt.Errorf("neighbour %s: %w", addr, err)
		}
		return nil
	})
}

// ipNet is a prefix as netlink wants it.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
