// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"

	"github.com/weft-net/weft/internal/netns"
)

// The names of the controls: what the kernel does without us, and the least that BPF can do.
const (
	Veth        = "veth"         // node to node over the wire, no pods
	Kernel      = "kernel"       // pod to pod, both nodes forward by route
	KernelVXLAN = "kernel-vxlan" // pod to pod through the kernel's VXLAN device
	Floor       = "floor"        // pod to pod, empty redirect programs
	NodeKernel  = "node-kernel"  // pod to pod on one node, forwarded by route
	NodeFloor   = "node-floor"   // pod to pod on one node, empty redirect program
)

// buildVeth is the wire alone: the physical limit.
func buildVeth(w *World) (Path, error) {
	a, b, err := w.newPair()
	if err != nil {
		return Path{}, err
	}
	return between(Pod{NS: a.NS, Addr: a.Addr}, Pod{NS: b.NS, Addr: b.Addr}), nil
}

// buildKernel routes pod addresses over the wire.
func buildKernel(w *World) (Path, error) {
	a, b, err := w.newPair()
	if err != nil {
		return Path{}, err
	}
	for _, n := range [][2]*Node{{a, b}, {b, a}} {
		to := n[1].Pods[0]
		if err := n[0].NS.AddRoute(netns.Route{To: host(to.Addr), Via: n[1].Addr}); err != nil {
			return Path{}, err
		}
	}
	return between(a.Pods[0], b.Pods[0]), nil
}

// buildKernelVXLAN routes pod addresses through a VXLAN device per node, with fixed forwarding and
// neighbour entries.
func buildKernelVXLAN(w *World) (Path, error) {
	a, b, err := w.newPair()
	if err != nil {
		return Path{}, err
	}
	overhead := 50
	if w.family == 6 {
		overhead = 70
	}
	mac := func(n *Node) net.HardwareAddr {
		return net.HardwareAddr{0x02, 0x77, 0x65, 0x66, 0x03, n.MAC[5]}
	}
	const dev = "vx0"
	for _, n := range [][2]*Node{{a, b}, {b, a}} {
		here, there := n[0], n[1]
		to := there.Pods[0]
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.HardwareAddr = dev, wireMTU-overhead, mac(here)
		err := here.NS.AddLink(&netlink.Vxlan{
			LinkAttrs: attrs, VxlanId: 77, VtepDevIndex: here.WireIdx,
			SrcAddr: here.Addr.AsSlice(), Port: 8472,
		})
		if err != nil {
			return Path{}, err
		}
		if err := addForwarding(here.NS, dev, mac(there), there.Addr.AsSlice()); err != nil {
			return Path{}, err
		}
		if err := here.NS.AddRoute(netns.Route{To: host(to.Addr), Link: dev}); err != nil {
			return Path{}, err
		}
		if err := here.NS.AddNeighbour(dev, to.Addr, mac(there)); err != nil {
			return Path{}, err
		}
		if err := here.Pods[0].NS.SetMTU(podDev, wireMTU-overhead); err != nil {
			return Path{}, err
		}
	}
	return between(a.Pods[0], b.Pods[0]), nil
}

// addForwarding tells a VXLAN device behind which node a MAC address is.
func addForwarding(ns *netns.NS, dev string, mac net.HardwareAddr, node net.IP) error {
	l, err := ns.Link(dev)
	if err != nil {
		return err
	}
	h, err := ns.Handle()
	if err != nil {
		return err
	}
	defer h.Close()
	err = h.NeighAppend(&netlink.Neigh{
		LinkIndex: l.Index, Family: afBridge, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF,
		IP: node, HardwareAddr: mac,
	})
	if err != nil {
		return fmt.Errorf("forwarding entry of %s: %w", dev, err)
	}
	return nil
}

// buildNodeKernel is one node that forwards between its pods.
func buildNodeKernel(w *World) (Path, error) {
	n, err := w.newSingle()
	if err != nil {
		return Path{}, err
	}
	return between(n.Pods[0], n.Pods[1]), nil
}
