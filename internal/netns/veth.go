// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// End is one end of a veth pair.
type End struct {
	NS    *NS
	Name  string
	MAC   net.HardwareAddr // nil: random
	Index int              // interface index; 0: the kernel's choice. Only for the first end
}

// Veth makes a veth pair between two namespaces, both ends up. An mtu of 0 is the kernel's choice.
func Veth(nsA *NS, nameA string, nsB *NS, nameB string, mtu int) error {
	return VethPair(End{NS: nsA, Name: nameA}, End{NS: nsB, Name: nameB}, mtu)
}

// VethPair is [Veth] with addresses and the first end's index as asked. Both ends are made in one
// step, so none ever shows up in a namespace that is not its own.
func VethPair(a, b End, mtu int) error {
	if b.Index != 0 {
		return fmt.Errorf("veth %s: the index of the second end (%s) cannot be chosen", a.Name, b.Name)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.Index, attrs.MTU = a.Name, a.MAC, a.Index, mtu
	link := netlink.NewVeth(attrs)
	link.PeerName, link.PeerHardwareAddr = b.Name, b.MAC
	link.PeerNamespace = netlink.NsFd(b.NS.Fd())
	link.PeerMTU = uint32(mtu)
	// A device is up only when its peer is, so the order does not matter.
	if err := a.NS.AddLink(link); err != nil {
		return fmt.Errorf("veth %s/%s: %w", a.Name, b.Name, err)
	}
	return b.NS.SetUp(b.Name)
}
