// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Devices of the node that serve the host stack; endpoints' packets do not run through them.
const (
	hostDevice  = "weft_host"  // holds the node's inside addresses; what is routed here goes to remote endpoints
	netDevice   = "weft_net"   // other end of hostDevice
	vxlanDevice = "weft_vxlan" // what the fast path leaves to the stack: outer fragments, odd underlays
)

// vxlanPort is the UDP port of the tunnel.
const vxlanPort = 8472

// netMAC is the address of weft_net.
func netMAC() net.HardwareAddr { return net.HardwareAddr{0x02, 'w', 'e', 'f', 't', 0x02} }

// hostDevices are the node's own devices after ensureHostDevices.
type hostDevices struct {
	hostIndex, netIndex int
	vxlanIndex          int // 0 in native mode
}

// ensureHostDevices makes what is missing and corrects what differs.
func ensureHostDevices(h *host, cfg Config, u underlay) (hostDevices, error) {
	var d hostDevices
	if err := ensurePair(h, cfg, u); err != nil {
		return d, err
	}
	for _, name := range []string{netDevice, hostDevice} {
		index, err := ensureUp(h, name, cfg.deviceMTU(u))
		if err != nil {
			return d, err
		}
		if name == hostDevice {
			d.hostIndex = index
		} else {
			d.netIndex = index
		}
	}
	for _, index := range []int{d.netIndex, d.hostIndex} {
		if err := h.awaitUp(index); err != nil {
			return d, err
		}
	}
	if err := ensureAddrs(h, d.hostIndex, cfg.InsideIPs); err != nil {
		return d, err
	}
	if cfg.Mode != ModeVXLAN {
		return d, removeVXLAN(h)
	}
	if err := ensureVXLAN(h); err != nil {
		return d, err
	}
	var err error
	if d.vxlanIndex, err = ensureUp(h, vxlanDevice, cfg.pathMTU(u)); errors.Is(err, unix.EADDRINUSE) {
		return d, errors.Join(portTaken(), removeVXLAN(h))
	}
	return d, err
}

func portTaken() error {
	return &NameClashError{Device: vxlanDevice, Reason: "another tunnel uses UDP port 8472"}
}

// ensurePair makes weft_host and weft_net.
func ensurePair(h *host, cfg Config, u underlay) error {
	have, err := h.link(hostDevice)
	if err != nil {
		return err
	}
	if have != nil {
		peer, err := h.link(netDevice)
		if err != nil {
			return err
		}
		if have.Type() != "veth" || peer == nil || have.Attrs().ParentIndex != peer.Attrs().Index {
			return &NameClashError{Device: hostDevice, Reason: "is not the other end of " + netDevice}
		}
		return nil
	}
	if peer, err := h.link(netDevice); err != nil {
		return err
	} else if peer != nil {
		return &NameClashError{Device: netDevice, Reason: "is there without " + hostDevice}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = hostDevice, cfg.deviceMTU(u), hostMAC()
	err = h.nl.LinkAdd(&netlink.Veth{
		LinkAttrs:        attrs,
		PeerName:         netDevice,
		PeerHardwareAddr: netMAC(),
		PeerTxQLen:       -1,
	})
	if err != nil {
		return fmt.Errorf("add device %s: %w", hostDevice, err)
	}
	return nil
}

// ensureUp brings a device of the node up, without neighbour resolution and without addresses of
// its own choice, and returns its index.
func ensureUp(h *host, name string, mtu int) (int, error) {
	if err := quietDevice(h, name); err != nil {
		return 0, err
	}
	link, err := h.nl.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("find device %s: %w", name, err)
	}
	a := link.Attrs()
	if a.MTU != mtu {
		if err := h.nl.LinkSetMTU(link, mtu); err != nil {
			return 0, fmt.Errorf("set MTU %d of %s: %w", mtu, name, err)
		}
	}
	if a.RawFlags&unix.IFF_NOARP == 0 {
		// The next hop is chosen by the program that has the packet, not by ARP.
		if err := h.nl.LinkSetARPOff(link); err != nil {
			return 0, fmt.Errorf("set %s noarp: %w", name, err)
		}
	}
	if a.Flags&net.FlagUp == 0 {
		if err := h.nl.LinkSetUp(link); err != nil {
			return 0, fmt.Errorf("set %s up: %w", name, err)
		}
	}
	return a.Index, nil
}

// ensureAddrs makes the addresses of weft_host exactly addrs.
func ensureAddrs(h *host, index int, addrs []netip.Addr) error {
	link, err := h.nl.LinkByIndex(index)
	if err != nil {
		return fmt.Errorf("find device %s: %w", hostDevice, err)
	}
	have, err := h.nl.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", hostDevice, err)
	}
	missing := slices.Clone(addrs)
	for _, k := range have {
		ip, _ := netip.AddrFromSlice(k.IP)
		ip = ip.Unmap()
		if i := slices.Index(missing, ip); i >= 0 {
			missing = slices.Delete(missing, i, i+1)
			continue
		}
		if ip.IsLinkLocalUnicast() {
			continue
		}
		if err := h.nl.AddrDel(link, &k); err != nil {
			return fmt.Errorf("delete address %s of %s: %w", ip, hostDevice, err)
		}
	}
	for _, ip := range missing {
		addr := &netlink.Addr{IPNet: ipNet(hostPrefix(ip))}
		if ip.Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := h.nl.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("add address %s to %s: %w", ip, hostDevice, err)
		}
		if err := h.awaitLocal(ip); err != nil {
			return err
		}
	}
	return nil
}

// ensureVXLAN makes weft_vxlan: the peer and the identity of each packet come with it.
func ensureVXLAN(h *host) error {
	have, err := h.link(vxlanDevice)
	if err != nil {
		return err
	}
	if have != nil {
		if v, ok := have.(*netlink.Vxlan); !ok || !v.FlowBased || v.Port != vxlanPort {
			return &NameClashError{Device: vxlanDevice, Reason: "is not a collect-metadata VXLAN device of port 8472"}
		}
		return nil
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = vxlanDevice, hostMAC()
	err = h.nl.LinkAdd(&netlink.Vxlan{
		LinkAttrs:      attrs,
		FlowBased:      true,
		Port:           vxlanPort,
		UDP6ZeroCSumTx: true,
		UDP6ZeroCSumRx: true,
	})
	switch {
	case errors.Is(err, unix.EADDRINUSE), errors.Is(err, unix.EEXIST):
		return portTaken()
	case err != nil:
		return fmt.Errorf("add device %s: %w", vxlanDevice, err)
	}
	return nil
}

// removeVXLAN takes away what an earlier run in VXLAN mode left.
func removeVXLAN(h *host) error {
	have, err := h.link(vxlanDevice)
	if err != nil || have == nil {
		return err
	}
	if err := h.nl.LinkDel(have); err != nil && !notFound(err) {
		return fmt.Errorf("delete device %s: %w", vxlanDevice, err)
	}
	return nil
}
