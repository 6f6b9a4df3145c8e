// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/weft-net/weft/bpf"
)

// Mode is how packets travel between nodes.
type Mode uint8

// The modes. All clusters of a mesh use the same one.
const (
	ModeNative Mode = iota // routed as they are: the underlay knows the pod CIDRs
	ModeVXLAN              // encapsulated, the source identity in the VNI
)

func (m Mode) String() string {
	switch m {
	case ModeNative:
		return "native"
	case ModeVXLAN:
		return "vxlan"
	}
	return fmt.Sprintf("mode %d", uint8(m))
}

// ParseMode reads what String writes.
func ParseMode(s string) (Mode, error) {
	for _, m := range []Mode{ModeNative, ModeVXLAN} {
		if s == m.String() {
			return m, nil
		}
	}
	return 0, fmt.Errorf("mode %q: want native or vxlan", s)
}

// Config is what a node's datapath must know at start. It does not change afterwards.
type Config struct {
	Cluster   string // name of our cluster: rows of it win over others'
	ClusterID uint32
	NodeName  string // in the store and in the path of the pins

	// NetNS is the path of the node's network namespace. Empty: the one of the process.
	NetNS string
	// BPFRoot is a mounted BPF file system. Empty: /sys/fs/bpf.
	BPFRoot string

	Mode Mode
	IPv4 bool // endpoints have IPv4 addresses
	IPv6 bool // endpoints have IPv6 addresses

	// NodeIPs are the node's addresses in the underlay, at most one of a family. The family of the
	// first is the tunnel's.
	NodeIPs []netip.Addr
	// InsideIPs are addresses of the node in the cluster network, at most one of a family, set on
	// weft_host and announced as the node's internal addresses.
	InsideIPs []netip.Addr
	// PodCIDRs are this node's, from which its endpoints get addresses.
	PodCIDRs []netip.Prefix

	// Underlay is the device that leads to other nodes. Empty: the one that has NodeIPs[0].
	Underlay string
	// MTU of endpoint devices, in bytes. 0: the underlay's, followed when it changes.
	MTU int

	// SocketLB is whose sockets are given backends when they connect or send.
	SocketLB SocketLB
	// SocketCgroup is the cgroup, of version 2, whose processes' sockets that is about. Empty:
	// /sys/fs/cgroup.
	SocketCgroup string

	// Sizes of maps in entries; 0 is the default of DefaultConfig.
	MaxFlows, MaxYoungFlows, MaxEndpoints, MaxIPCache, MaxPrefixes uint32
	MaxNodes, MaxFrontends, MaxBackends, MaxFragments, MaxSockets  uint32
	// EventBytes is the size of the event ring, a power of two. 0: default.
	EventBytes uint32

	// GCInterval is the longest time between two sweeps of the flow table. 0: default.
	GCInterval time.Duration
	// RefreshInterval is how often devices, routes and sysctls are compared although nothing was
	// announced. 0: default.
	RefreshInterval time.Duration
}

// DefaultConfig has every setting that does not depend on the node.
func DefaultConfig() Config {
	return Config{
		BPFRoot:         "/sys/fs/bpf",
		SocketCgroup:    "/sys/fs/cgroup",
		IPv4:            true,
		MaxFlows:        512 << 10,
		MaxYoungFlows:   64 << 10,
		MaxEndpoints:    4096,
		MaxIPCache:      512 << 10,
		MaxPrefixes:     64 << 10,
		MaxNodes:        8 << 10,
		MaxFrontends:    64 << 10,
		MaxBackends:     128 << 10,
		MaxFragments:    8 << 10,
		MaxSockets:      64 << 10,
		EventBytes:      4 << 20,
		GCInterval:      30 * time.Second,
		RefreshInterval: 30 * time.Second,
	}
}

// withDefaults fills the settings that were left zero and have a default.
func (c Config) withDefaults() Config {
	d := DefaultConfig()
	for _, f := range []struct{ v, def *uint32 }{
		{&c.MaxFlows, &d.MaxFlows},
		{&c.MaxYoungFlows, &d.MaxYoungFlows},
		{&c.MaxEndpoints, &d.MaxEndpoints},
		{&c.MaxIPCache, &d.MaxIPCache},
		{&c.MaxPrefixes, &d.MaxPrefixes},
		{&c.MaxNodes, &d.MaxNodes},
		{&c.MaxFrontends, &d.MaxFrontends},
		{&c.MaxBackends, &d.MaxBackends},
		{&c.MaxFragments, &d.MaxFragments},
		{&c.MaxSockets, &d.MaxSockets},
		{&c.EventBytes, &d.EventBytes},
	} {
		if *f.v == 0 {
			*f.v = *f.def
		}
	}
	if c.BPFRoot == "" {
		c.BPFRoot = d.BPFRoot
	}
	if c.SocketCgroup == "" {
		c.SocketCgroup = d.SocketCgroup
	}
	if c.GCInterval == 0 {
		c.GCInterval = d.GCInterval
	}
	if c.RefreshInterval == 0 {
		c.RefreshInterval = d.RefreshInterval
	}
	return c
}

// Limits of settings.
const (
	minMTU     = 1280 // what IPv6 needs; endpoints get at least that much in every mode
	maxMTU     = 65535
	minMapSize = 16
	maxSlot    = 65535
)

// programs is what the programs are told.
func (c Config) programs(pinPath string) bpf.Config {
	b := bpf.DefaultConfig()
	b.PinPath = pinPath
	b.EndpointIfindexBase, b.EndpointSlots = EndpointIfIndexBase, c.MaxEndpoints
	b.GatewayMAC, b.GatewayIPv4, b.GatewayIPv6 = hostMAC(), gateway(false), gateway(true)
	b.TunnelPort = vxlanPort
	b.TunnelOverIPv4 = c.Mode == ModeVXLAN && !c.tunnelIs6()
	b.TunnelOverIPv6 = c.Mode == ModeVXLAN && c.tunnelIs6()
	b.MaxFlows, b.MaxYoungFlows = c.MaxFlows, c.MaxYoungFlows
	b.MaxIPCache, b.MaxPrefixes, b.MaxNodes = c.MaxIPCache, c.MaxPrefixes, c.MaxNodes
	b.MaxFrontends, b.MaxBackends, b.MaxFragments = c.MaxFrontends, c.MaxBackends, c.MaxFragments
	b.EventBytes, b.MaxSockets = c.EventBytes, c.MaxSockets
	return b
}

// Validate says what is wrong with c, all of it.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if c.NodeName == "" || c.NodeName == "." || c.NodeName == ".." || strings.ContainsAny(c.NodeName, "/\x00") {
		bad("node name %q: not a file name", c.NodeName)
	}
	if c.Mode != ModeNative && c.Mode != ModeVXLAN {
		bad("%v: want native or vxlan", c.Mode)
	}
	if c.SocketLB > SocketLBAll {
		bad("%v: want off, host or all", c.SocketLB)
	}
	if !c.IPv4 && !c.IPv6 {
		bad("no address family is on")
	}
	if len(c.NodeIPs) == 0 {
		bad("no node address")
	}
	errs = append(errs, oneOfFamily("node address", c.NodeIPs), oneOfFamily("inside address", c.InsideIPs))
	for _, p := range c.PodCIDRs {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			bad("pod CIDR %s: not a network", p)
		}
	}
	if c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxMTU) {
		bad("MTU %d: want 0 or %d to %d", c.MTU, minMTU, maxMTU)
	}
	for _, m := range []struct {
		name string
		size uint32
	}{
		{"flows", c.MaxFlows},
		{"young flows", c.MaxYoungFlows},
		{"endpoints", c.MaxEndpoints},
		{"ipcache", c.MaxIPCache},
		{"prefixes", c.MaxPrefixes},
		{"nodes", c.MaxNodes},
		{"frontends", c.MaxFrontends},
		{"backends", c.MaxBackends},
		{"fragments", c.MaxFragments},
		{"sockets", c.MaxSockets},
	} {
		if m.size < minMapSize {
			bad("map size of %s: %d, want at least %d", m.name, m.size, minMapSize)
		}
	}
	if c.MaxEndpoints > maxSlot+1 {
		bad("map size of endpoints: %d, want at most %d", c.MaxEndpoints, maxSlot+1)
	}
	if c.MaxNodes > 1<<16 {
		bad("map size of nodes: %d, want at most %d", c.MaxNodes, 1<<16)
	}
	if c.EventBytes < 4096 || c.EventBytes&(c.EventBytes-1) != 0 {
		bad("event ring of %d bytes: want a power of two from 4096 up", c.EventBytes)
	}
	if c.GCInterval < 0 || c.RefreshInterval < 0 {
		bad("negative interval")
	}
	return errors.Join(errs...)
}

// oneOfFamily checks a list that has at most one address of each family.
func oneOfFamily(what string, addrs []netip.Addr) error {
	var seen [2]bool
	for _, a := range addrs {
		switch {
		case !a.IsValid() || a.Is4In6() || a.Zone() != "":
			return fmt.Errorf("%s %s: not an address", what, a)
		case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback():
			return fmt.Errorf("%s %s: not a unicast address of a node", what, a)
		}
		family := 0
		if a.Is6() {
			family = 1
		}
		if seen[family] {
			return fmt.Errorf("%s %s: second of its family", what, a)
		}
		seen[family] = true
	}
	return nil
}

// addrOf is the address of a family in a list that has at most one of each, or the zero Addr.
func addrOf(addrs []netip.Addr, is6 bool) netip.Addr {
	for _, a := range addrs {
		if a.Is6() == is6 {
			return a
		}
	}
	return netip.Addr{}
}

// tunnelIs6 says whether the outer header is IPv6.
func (c Config) tunnelIs6() bool { return len(c.NodeIPs) > 0 && c.NodeIPs[0].Is6() }

// Bytes that VXLAN adds: outer IP, UDP and VXLAN headers and the inner Ethernet header.
const (
	overheadVXLAN4 = 20 + 8 + 8 + 14
	overheadVXLAN6 = 40 + 8 + 8 + 14
)

// overhead is what a packet to another node grows by, in bytes.
func (c Config) overhead() int {
	switch {
	case c.Mode != ModeVXLAN:
		return 0
	case c.tunnelIs6():
		return overheadVXLAN6
	}
	return overheadVXLAN4
}
