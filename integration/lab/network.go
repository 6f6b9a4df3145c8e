// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/weft-net/weft/internal/netns"
)

// Devices of a node, and the links of the router that can be cut.
const (
	dataDev    = "eth0" // the underlay
	controlDev = "eth1" // the way to the stores
)

func dataLink(c Cluster) string    { return fmt.Sprintf("data%d", c.ID) }
func controlLink(c Cluster) string { return fmt.Sprintf("ctl%d", c.ID) }

// namespaces lists every namespace of the lab.
func (l *Lab) namespaces() []string {
	all := []string{l.WAN}
	for _, c := range l.Clusters {
		all = append(all, c.Switch, c.Etcd.Netns, c.Operator.Netns)
		for _, s := range c.APIServers {
			all = append(all, s.Netns)
		}
		for _, n := range c.Nodes {
			all = append(all, n.Agent.Netns)
			for _, p := range n.Pods {
				all = append(all, p.Workload.Netns)
			}
		}
	}
	return all
}

// builder holds the namespaces open while their links are made.
type builder struct {
	lab *Lab
	ns  map[string]*netns.NS
}

// buildNetwork makes all namespaces, links, addresses and routes below the nodes' agents.
func (l *Lab) buildNetwork() error {
	b := builder{lab: l, ns: map[string]*netns.NS{}}
	defer func() {
		for _, ns := range b.ns {
			ns.Close()
		}
	}()
	for _, name := range l.namespaces() {
		ns, err := netns.New(name)
		if err != nil {
			return err
		}
		b.ns[name] = ns
	}
	if err := b.ns[l.WAN].SetForwarding(true); err != nil {
		return err
	}
	for _, c := range l.Clusters {
		if err := b.cluster(c); err != nil {
			return fmt.Errorf("network of cluster %s: %w", c.Name, err)
		}
	}
	return nil
}

func (b *builder) cluster(c Cluster) error {
	a := addressing{b.lab.Family, int(c.ID)}
	sw := b.ns[c.Switch]
	for _, bridge := range []string{"data", "ctl"} {
		if err := sw.AddBridge(bridge); err != nil {
			return err
		}
	}
	wan := b.ns[b.lab.WAN]
	if err := b.plug(wan, dataLink(c), sw, "data", "data-wan", b.lab.WANMTU, a.data(hostRouter)); err != nil {
		return err
	}
	if err := b.plug(wan, controlLink(c), sw, "ctl", "ctl-wan", nodeMTU, []netip.Addr{a.control(hostRouter)}); err != nil {
		return err
	}
	type host struct {
		netns, port string
		number      int
	}
	hosts := []host{{c.Etcd.Netns, "etcd", hostEtcd}, {c.Operator.Netns, "op", hostOp}}
	for i, s := range c.APIServers {
		hosts = append(hosts, host{s.Netns, serverName(i), hostServer + i})
	}
	for _, h := range hosts {
		if err := b.plug(b.ns[h.netns], controlDev, sw, "ctl", h.port, nodeMTU, []netip.Addr{a.control(h.number)}); err != nil {
			return err
		}
		if err := b.controlRoutes(h.netns, c, a); err != nil {
			return err
		}
	}
	for i, n := range c.Nodes {
		if err := b.node(c, n, i+1, a); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
	}
	return nil
}

func (b *builder) node(c Cluster, n Node, number int, a addressing) error {
	ns, sw := b.ns[n.Agent.Netns], b.ns[c.Switch]
	if err := b.plug(ns, dataDev, sw, "data", fmt.Sprintf("n%d", number), nodeMTU, n.Addresses); err != nil {
		return err
	}
	if err := b.plug(ns, controlDev, sw, "ctl", fmt.Sprintf("c%d", number), nodeMTU, []netip.Addr{n.Control}); err != nil {
		return err
	}
	for _, router := range a.data(hostRouter) {
		// As an administrator does who knows his network, the route says what the way beyond the
		// router carries; in the cluster the device's own size counts.
		err := ns.AddRoute(netns.Route{To: anywhere(router), Via: router, Link: dataDev, MTU: b.lab.WANMTU})
		if err != nil {
			return err
		}
	}
	if err := b.controlRoutes(n.Agent.Netns, c, a); err != nil {
		return err
	}
	if b.lab.Mode != Native {
		return nil
	}
	return b.lab.routePods(b.ns[b.lab.WAN], c, n)
}

// controlRoutes lets a host of one cluster reach the control networks of the others, and only them,
// over the control link.
func (b *builder) controlRoutes(name string, own Cluster, a addressing) error {
	for _, other := range b.lab.Clusters {
		if other.ID == own.ID {
			continue
		}
		there := addressing{b.lab.Family, int(other.ID)}.control(0)
		to := netip.PrefixFrom(there, bits(there)).Masked()
		if err := b.ns[name].AddRoute(netns.Route{To: to, Via: a.control(hostRouter), Link: controlDev}); err != nil {
			return err
		}
	}
	return nil
}

// plug joins a device of a host to a bridge of the switch and gives it addresses.
func (b *builder) plug(host *netns.NS, dev string, sw *netns.NS, bridge, port string, mtu int, addrs []netip.Addr) error {
	if err := netns.Veth(host, dev, sw, port, mtu); err != nil {
		return err
	}
	if err := sw.AddPort(bridge, port); err != nil {
		return err
	}
	for _, addr := range addrs {
		if err := host.AddAddr(dev, netip.PrefixFrom(addr, bits(addr))); err != nil {
			return err
		}
	}
	return nil
}

// anywhere is the default route of an address's family.
func anywhere(addr netip.Addr) netip.Prefix {
	if addr.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// restoreRouter gives a link of the router back what the kernel dropped when the link went down.
func (l *Lab) restoreRouter(wan *netns.NS, c Cluster, dev string) error {
	a := addressing{l.Family, int(c.ID)}
	addrs := a.data(hostRouter)
	if dev == controlLink(c) {
		addrs = []netip.Addr{a.control(hostRouter)}
	}
	for _, addr := range addrs {
		if !addr.Is6() {
			continue // an IPv4 address outlives its device's being down
		}
		if err := wan.AddAddr(dev, netip.PrefixFrom(addr, bits(addr))); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if l.Mode != Native || dev != dataLink(c) {
		return nil
	}
	for _, n := range c.Nodes {
		if err := l.routePods(wan, c, n); err != nil {
			return err
		}
	}
	return nil
}

// routePods tells the router the way to a node's pods, which native routing needs of its underlay.
func (l *Lab) routePods(wan *netns.NS, c Cluster, n Node) error {
	for _, cidr := range n.PodCIDRs {
		for _, addr := range n.Addresses {
			if addr.Is4() != cidr.Addr().Is4() {
				continue
			}
			if err := wan.AddRoute(netns.Route{To: cidr, Via: addr, Link: dataLink(c)}); err != nil {
				return err
			}
		}
	}
	return nil
}
