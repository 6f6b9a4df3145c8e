// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// EndpointIfIndexBase is where the interface indexes of endpoint devices begin: the device of slot
// n has the index EndpointIfIndexBase + n, so that a program knows the slot without a lookup.
const EndpointIfIndexBase = 0x10000

// insideName is the device in an endpoint's namespace when nobody wants another name.
const insideName = "eth0"

// veth is the device pair of one endpoint as it should be.
type veth struct {
	slot       uint16
	host       string // name on the node
	inside     string // name in the endpoint
	ipv4, ipv6 netip.Addr
	mtu        int // of both devices
	pathMTU    int // of the endpoint's default routes
}

// EndpointDeviceName is the host side device of an endpoint. The same endpoint gets the same name,
// so that making it twice is noticed.
func EndpointDeviceName(slot uint16, name string) string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d/%s", slot, name)
	return fmt.Sprintf("lxc%010x", h.Sum64()&(1<<40-1))
}

// hostMAC is the address of every host side device of every node: an endpoint's neighbour entry
// for its gateway is then right whichever device stands behind it.
func hostMAC() net.HardwareAddr { return net.HardwareAddr{0x02, 'w', 'e', 'f', 't', 0x01} }

// endpointMAC is the address of an endpoint's side.
func endpointMAC(slot uint16) net.HardwareAddr {
	return net.HardwareAddr{0x06, 'w', 'e', 'f', byte(slot >> 8), byte(slot)}
}

// gateway is the next hop that every endpoint has; no device carries it.
func gateway(is6 bool) netip.Addr {
	if is6 {
		return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: 1})
	}
	return netip.AddrFrom4([4]byte{169, 254, 1, 1})
}

func (v veth) index() int { return EndpointIfIndexBase + int(v.slot) }

// addrs are the endpoint's addresses.
func (v veth) addrs() []netip.Addr {
	var as []netip.Addr
	for _, a := range []netip.Addr{v.ipv4, v.ipv6} {
		if a.IsValid() {
			as = append(as, a)
		}
	}
	return as
}

// create makes the pair, both ends down, or finds it. It undoes itself on failure.
func (v veth) create(node, pod *host) (made bool, err error) {
	have, err := v.find(node)
	if err != nil {
		return false, err
	}
	if have != nil {
		peer, err := pod.link(v.inside)
		if err != nil {
			return false, err
		}
		if peer != nil && peer.Attrs().ParentIndex == v.index() {
			return false, nil
		}
		// Its other end is elsewhere: a namespace that is gone or was replaced.
		if err := node.nl.LinkDel(have); err != nil {
			return false, fmt.Errorf("delete stale device %s: %w", v.host, err)
		}
	}
	if peer, err := pod.link(v.inside); err != nil {
		return false, err
	} else if peer != nil {
		return false, &NameClashError{Device: v.inside, Reason: "the endpoint's namespace has one already"}
	}

	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Index, attrs.MTU, attrs.HardwareAddr = v.host, v.index(), v.mtu, hostMAC()
	err = node.nl.LinkAdd(&netlink.Veth{
		LinkAttrs:        attrs,
		PeerName:         v.inside,
		PeerHardwareAddr: endpointMAC(v.slot),
		PeerNamespace:    netlink.NsFd(pod.ns.Fd()),
		PeerTxQLen:       -1,
	})
	if err != nil {
		return false, fmt.Errorf("add device %s: %w", v.host, err)
	}
	return true, nil
}

// find returns the host side device if it is there and ours, nil if there is none, and a
// NameClashError if name or index are taken by another.
func (v veth) find(node *host) (netlink.Link, error) {
	byName, err := node.link(v.host)
	if err != nil {
		return nil, err
	}
	byIndex, err := node.linkAt(v.index())
	if err != nil {
		return nil, err
	}
	switch {
	case byName == nil && byIndex == nil:
		return nil, nil
	case byName == nil:
		return nil, &NameClashError{
			Device: byIndex.Attrs().Name,
			Reason: fmt.Sprintf("has interface index %d of slot %d", v.index(), v.slot),
		}
	case byName.Attrs().Index != v.index():
		return nil, &NameClashError{
			Device: v.host,
			Reason: fmt.Sprintf("interface index %d, want %d", byName.Attrs().Index, v.index()),
		}
	case byName.Type() != "veth":
		return nil, &NameClashError{Device: v.host, Reason: "is a " + byName.Type()}
	}
	return byName, nil
}

// setUp brings both ends up with all that belongs to them. The end that comes second is usable at
// once; the first one is waited for.
func (v veth) setUp(node, pod *host, sources []netip.Addr) error {
	if err := v.setUpHost(node, sources); err != nil {
		return err
	}
	if err := v.setUpInside(pod); err != nil {
		return err
	}
	return node.awaitUp(v.index())
}

// setUpInside gives the endpoint's end its addresses, routes and neighbours and brings it up.
func (v veth) setUpInside(pod *host) error {
	link, err := pod.nl.LinkByName(v.inside)
	if err != nil {
		return fmt.Errorf("find device %s: %w", v.inside, err)
	}
	lo, err := pod.nl.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find device lo: %w", err)
	}
	if err := pod.nl.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	if v.ipv6.IsValid() {
		// Container runtimes switch IPv6 off. A link-local address would be of no use and its
		// packets dropped as foreign.
		for _, st := range []setting{
			{"net/ipv6/conf/all/disable_ipv6", "0"},
			{"net/ipv6/conf/" + v.inside + "/disable_ipv6", "0"},
			{"net/ipv6/conf/" + v.inside + "/accept_ra", "0"},
			{"net/ipv6/conf/" + v.inside + "/accept_dad", "0"},
			{"net/ipv6/conf/" + v.inside + "/addr_gen_mode", "1"},
		} {
			if _, err := correct(pod, st); err != nil {
				return err
			}
		}
	}
	for _, a := range v.addrs() {
		addr := &netlink.Addr{IPNet: ipNet(hostPrefix(a))}
		if a.Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := pod.nl.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("add address %s to %s: %w", a, v.inside, err)
		}
	}
	if err := pod.nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", v.inside, err)
	}
	for _, a := range v.addrs() {
		if err := pod.awaitLocal(a); err != nil {
			return err
		}
		gw := gateway(a.Is6())
		if err := setNeighbour(pod, link.Attrs().Index, gw, hostMAC()); err != nil {
			return err
		}
	}
	return v.setPathMTU(pod)
}

// setPathMTU writes the endpoint's default routes.
func (v veth) setPathMTU(pod *host) error {
	link, err := pod.nl.LinkByName(v.inside)
	if err != nil {
		return fmt.Errorf("find device %s: %w", v.inside, err)
	}
	for _, a := range v.addrs() {
		route := &netlink.Route{
			LinkIndex: link.Attrs().Index,
			Dst:       ipNet(anywhere(a.Is6())),
			Gw:        gateway(a.Is6()).AsSlice(),
			Flags:     int(netlink.FLAG_ONLINK),
			MTU:       v.pathMTU,
			Protocol:  RouteProtocol,
		}
		if err := pod.nl.RouteReplace(route); err != nil {
			return fmt.Errorf("default route of %s: %w", a, err)
		}
	}
	return nil
}

// setMTU changes the MTU of both ends and of the endpoint's default routes. A namespace that is gone
// takes its device along; there is nothing to change then.
func (v veth) setMTU(node *host, link netlink.Link, netNSPath string) error {
	if err := node.nl.LinkSetMTU(link, v.mtu); err != nil {
		return fmt.Errorf("set MTU %d of %s: %w", v.mtu, v.host, err)
	}
	if netNSPath == "" {
		return nil
	}
	pod, err := openHost(netNSPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer pod.Close()
	links, err := pod.nl.LinkList()
	if err != nil {
		return fmt.Errorf("list devices: %w", err)
	}
	for _, l := range links {
		if l.Type() != "veth" || l.Attrs().ParentIndex != v.index() {
			continue
		}
		v.inside = l.Attrs().Name
		if err := pod.nl.LinkSetMTU(l, v.mtu); err != nil {
			return fmt.Errorf("set MTU %d of %s: %w", v.mtu, v.inside, err)
		}
		return v.setPathMTU(pod)
	}
	return nil
}

// setUpHost brings the node's end up with the routes and neighbours that lead from the node to the
// endpoint. sources are the node's addresses as the endpoint should see them.
func (v veth) setUpHost(node *host, sources []netip.Addr) error {
	if err := quietDevice(node, v.host); err != nil {
		return err
	}
	link, err := node.nl.LinkByIndex(v.index())
	if err != nil {
		return fmt.Errorf("find device %s: %w", v.host, err)
	}
	if err := node.nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", v.host, err)
	}
	for _, a := range v.addrs() {
		if err := setNeighbour(node, v.index(), a, endpointMAC(v.slot)); err != nil {
			return err
		}
	}
	for _, r := range v.routes(sources) {
		if err := r.put(node); err != nil {
			return err
		}
	}
	return nil
}

// routes are what the node needs to reach the endpoint.
func (v veth) routes(sources []netip.Addr) []route {
	var rs []route
	for _, a := range v.addrs() {
		rs = append(rs, route{
			dst:  hostPrefix(a),
			link: v.index(),
			src:  addrOf(sources, a.Is6()),
		})
	}
	return rs
}

// setNeighbour makes a permanent neighbour entry.
func setNeighbour(h *host, index int, addr netip.Addr, mac net.HardwareAddr) error {
	err := h.nl.NeighSet(&netlink.Neigh{
		LinkIndex:    index,
		State:        netlink.NUD_PERMANENT,
		IP:           addr.AsSlice(),
		HardwareAddr: mac,
	})
	if err != nil {
		return fmt.Errorf("neighbour %s: %w", addr, err)
	}
	return nil
}
