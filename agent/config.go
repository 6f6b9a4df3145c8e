// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/weft-net/weft/datapath"
)

// Modes of the path between nodes; equal in all clusters of a mesh.
const (
	ModeVXLAN  = "vxlan"
	ModeNative = "native"
)

// Whose sockets are given backends of services when they connect or send.
const (
	SocketLBOff  = "off"
	SocketLBHost = "host" // those of the node's own processes
	SocketLBAll  = "all"  // and those of endpoints
)

// Families of addresses that endpoints get.
const (
	Family4    = "4"
	Family6    = "6"
	FamilyDual = "dual"
)

// Config is everything one agent is told. It is complete before New and never
// changes afterwards.
type Config struct {
	Node        string // unique in the cluster
	Cluster     string // at most 32 of a-z, 0-9 and '-'
	ClusterID   uint32 // 1 to MaxClusters, unique in the mesh
	MaxClusters uint32 // 255 or 511, equal in the whole mesh

	Addresses    []netip.Addr   // of this node on the underlay, one per family; the first one's family is the tunnel's
	PodCIDRs     []netip.Prefix // addresses of endpoints come from here; at most one per family
	ServiceCIDRs []netip.Prefix // virtual addresses of services come from here
	Family       string
	Mode         string
	Underlay     string // device towards the other nodes; empty: the one that has the first address
	MTU          int    // of endpoint devices, bytes; 0 follows the underlay
	SocketLB     string // whose sockets are given backends of services
	SocketCgroup string // whose processes those are; a cgroup of version 2

	BPFFS    string // mount point of the BPF file system; pins go below weft/<node>
	StateDir string // endpoints and checkpoints; survives restarts
	Socket   string // of the local API

	Etcd           string        // etcd client file of the own cluster
	ClusterMeshDir string        // etcd client files of the others; empty: no mesh
	LeaseTTL       time.Duration // how long the node's rows outlive its agent

	Metrics   string // address:port of the Prometheus metrics; empty: off
	LogLevel  string
	LogFormat string

	Labels []string // label filter, in order; empty: the built-in one

	Maps MapSizes

	AddressRest time.Duration // how long a freed address is not handed out
}

// MapSizes are the numbers of entries of the BPF maps. A new
// size takes effect at the next start, which moves the rows that fit into a new map.
type MapSizes struct {
	Flows, YoungFlows        uint32
	IPCache, IPCachePrefixes uint32
	Nodes                    uint32
	Frontends, Backends      uint32
	Fragments                uint32
	Sockets                  uint32
	EventBytes               uint32 // of the ring buffer; a power of two, at least one page
	Endpoints                uint32
}

// DefaultConfig returns a Config that lacks only what cannot be guessed: node,
// cluster, cluster-id, addresses, pod-cidrs and etcd.
func DefaultConfig() Config {
	d := datapath.DefaultConfig()
	return Config{
		MaxClusters: 255,
		Family:      FamilyDual,
		Mode:        ModeVXLAN,
		SocketLB:    SocketLBOff,
		BPFFS:       "/sys/fs/bpf",
		StateDir:    "/var/lib/weft",
		Socket:      "/run/weft/agent.sock",
		LeaseTTL:    15 * time.Minute,
		LogLevel:    "info",
		LogFormat:   "text",
		AddressRest: 30 * time.Second,
		Maps: MapSizes{
			Flows: d.MaxFlows, YoungFlows: d.MaxYoungFlows, IPCache: d.MaxIPCache, IPCachePrefixes: d.MaxPrefixes,
			Nodes: d.MaxNodes, Frontends: d.MaxFrontends, Backends: d.MaxBackends, Fragments: d.MaxFragments,
			EventBytes: d.EventBytes, Endpoints: d.MaxEndpoints, Sockets: d.MaxSockets,
		},
		SocketCgroup: d.SocketCgroup,
	}
}

// A ConfigError says which setting is wrong, why, and what to do about it.
type ConfigError struct {
	Key, Reason, Hint string
}

func (e *ConfigError) Error() string {
	s := fmt.Sprintf("setting %s: %s", e.Key, e.Reason)
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

var (
	clusterName = regexp.MustCompile(`^([a-z0-9][-a-z0-9]*)?[a-z0-9]$`)
	nodeName    = regexp.MustCompile(`^[a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?$`)
)

// Validate returns all that is wrong, joined; each part is a *ConfigError.
func (c Config) Validate() error {
	var errs []error
	bad := func(key, hint, format string, args ...any) {
		errs = append(errs, &ConfigError{Key: key, Reason: fmt.Sprintf(format, args...), Hint: hint})
	}
	c.validateNames(bad)
	c.validateAddresses(bad)
	c.validatePaths(bad)
	c.validateSizes(bad)
	return errors.Join(errs...)
}

type report func(key, hint, format string, args ...any)

func (c Config) validateNames(bad report) {
	switch {
	case c.Node == "":
		bad("node", "give the node's name, such as --node a1", "is missing")
	case len(c.Node) > 253 || !nodeName.MatchString(c.Node):
		bad("node", "use letters, digits, '-', '_' and '.'", "%q is not a node name", c.Node)
	}
	switch {
	case c.Cluster == "":
		bad("cluster", "give the cluster's name, such as --cluster a", "is missing")
	case len(c.Cluster) > 32 || !clusterName.MatchString(c.Cluster):
		bad("cluster", "use at most 32 of a-z, 0-9 and '-'", "%q is not a cluster name", c.Cluster)
	}
	if c.MaxClusters != 255 && c.MaxClusters != 511 {
		bad("max-clusters", "use 255 or 511, the same in the whole mesh", "%d is neither 255 nor 511", c.MaxClusters)
	} else if c.ClusterID < 1 || c.ClusterID > c.MaxClusters {
		bad("cluster-id", "use a number that no other cluster of the mesh has",
			"%d is not within 1 to %d", c.ClusterID, c.MaxClusters)
	}
	oneOf(bad, "mode", c.Mode, ModeVXLAN, ModeNative)
	oneOf(bad, "socket-lb", c.SocketLB, SocketLBOff, SocketLBHost, SocketLBAll)
	oneOf(bad, "family", c.Family, Family4, Family6, FamilyDual)
	oneOf(bad, "log-level", c.LogLevel, "debug", "info", "warn", "error")
	oneOf(bad, "log-format", c.LogFormat, "text", "json")
	if len(c.Underlay) > 15 {
		bad("underlay", "see 'ip link' for the names", "%q is not a device name", c.Underlay)
	}
	if c.MTU != 0 && (c.MTU < 1280 || c.MTU > 65535) {
		bad("mtu", "0 follows the underlay", "%d is not within 1280 to 65535", c.MTU)
	}
}

func oneOf(bad report, key, got string, want ...string) {
	for _, w := range want {
		if got == w {
			return
		}
	}
	bad(key, "use one of "+strings.Join(want, ", "), "%q is unknown", got)
}

// HasFamily reports whether endpoints get addresses of that kind.
func (c Config) HasFamily(v6 bool) bool {
	return c.Family == FamilyDual || (c.Family == Family6) == v6
}

func (c Config) validateAddresses(bad report) {
	for _, v6 := range []bool{false, true} {
		var cidrs []netip.Prefix
		for _, p := range c.PodCIDRs {
			if p.Addr().Is6() == v6 {
				cidrs = append(cidrs, p)
			}
		}
		name := "IPv4"
		if v6 {
			name = "IPv6"
		}
		switch {
		case c.Family != FamilyDual && c.Family != Family4 && c.Family != Family6: // reported above
		case c.HasFamily(v6) && len(cidrs) == 0:
			bad("pod-cidrs", "add one or change family", "no %s range, but family is %s", name, c.Family)
		case !c.HasFamily(v6) && len(cidrs) > 0:
			bad("pod-cidrs", "remove it or change family", "%v is %s, but family is %s", cidrs[0], name, c.Family)
		case len(cidrs) > 1:
			bad("pod-cidrs", "give one per family", "%d ranges of %s", len(cidrs), name)
		}
	}
	for _, p := range c.PodCIDRs {
		validatePrefix(bad, "pod-cidrs", p)
		if p.IsValid() && p.Addr().BitLen()-p.Bits() < 2 {
			bad("pod-cidrs", "a node needs at least a /30 or /126", "%v has no room for an endpoint", p)
		}
	}
	for i, p := range c.ServiceCIDRs {
		validatePrefix(bad, "service-cidrs", p)
		for _, q := range append(c.PodCIDRs, c.ServiceCIDRs[:i]...) {
			if p.Overlaps(q) {
				bad("service-cidrs", "keep all ranges apart", "%v overlaps %v", p, q)
			}
		}
	}
	if len(c.Addresses) == 0 {
		bad("addresses", "give the node's address on the underlay", "is missing")
	}
	seen := map[bool]bool{}
	for _, a := range c.Addresses {
		switch {
		case !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.Is4In6() || a.Zone() != "":
			bad("addresses", "give a unicast address of the underlay device", "%v cannot be a node's address", a)
		case a.IsLinkLocalUnicast():
			bad("addresses", "give one that other nodes reach", "%v is link-local", a)
		case seen[a.Is6()]:
			bad("addresses", "give the one that tunnels end at", "%v is the second of its family", a)
		}
		seen[a.Is6()] = true
		for _, p := range c.PodCIDRs {
			if p.Contains(a) {
				bad("addresses", "keep the node's own address out of pod-cidrs", "%v is within %v", a, p)
			}
		}
	}
}

func validatePrefix(bad report, key string, p netip.Prefix) {
	switch {
	case !p.IsValid():
		bad(key, "write it as address/length", "not a prefix")
	case p.Addr().Is4In6():
		bad(key, "write the IPv4 range itself", "%v is an IPv4 range in IPv6 form", p)
	case p.Masked() != p:
		bad(key, fmt.Sprintf("did you mean %v?", p.Masked()), "%v has bits behind its length", p)
	case p.Bits() == 0 || p.Addr().IsMulticast() || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast():
		bad(key, "use a unicast range", "%v cannot be used", p)
	}
}

func (c Config) validatePaths(bad report) {
	for _, p := range []struct{ key, path string }{
		{"bpffs", c.BPFFS}, {"state-dir", c.StateDir}, {"socket", c.Socket}, {"etcd", c.Etcd},
		{"socket-lb-cgroup", c.SocketCgroup},
	} {
		switch {
		case p.path == "":
			bad(p.key, "give an absolute path", "is missing")
		case !filepath.IsAbs(p.path):
			bad(p.key, "give an absolute path", "%q is relative", p.path)
		}
	}
	if c.ClusterMeshDir != "" && !filepath.IsAbs(c.ClusterMeshDir) {
		bad("clustermesh-dir", "give an absolute path", "%q is relative", c.ClusterMeshDir)
	}
	if len(c.Socket) > 103 { // 107, less what a new socket is called before it is renamed
		bad("socket", "use a shorter path", "%d bytes are more than the 103 it may have", len(c.Socket))
	}
	if c.Metrics != "" {
		if _, err := netip.ParseAddrPort(c.Metrics); err != nil {
			bad("metrics", "use 127.0.0.1:9962 or leave it empty", "%q is not address:port", c.Metrics)
		}
	}
}

func (c Config) validateSizes(bad report) {
	if c.LeaseTTL < 10*time.Second || c.LeaseTTL > 24*time.Hour {
		bad("lease-ttl", "15m is usual", "%v is not within 10s to 24h", c.LeaseTTL)
	}
	if c.AddressRest < 0 || c.AddressRest > time.Hour {
		bad("address-rest", "30s is usual", "%v is not within 0 to 1h", c.AddressRest)
	}
	if c.Maps.Endpoints > 65536 {
		bad("map-endpoints", "a node has at most 65535 endpoints", "%d is more than 65536", c.Maps.Endpoints)
	}
	for _, s := range c.Maps.settings() {
		v := *s.value
		if v < s.min || v > 1<<28 {
			bad(s.key, "the default is right for most nodes", "%d is not within %d to %d", v, s.min, 1<<28)
		}
	}
	if n := c.Maps.EventBytes; n&(n-1) != 0 {
		bad("map-events", "use 1048576", "%d bytes are not a power of two", n)
	}
}
