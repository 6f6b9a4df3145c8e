// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// A Setting is one value of a Config under its one name: --pod-cidrs,
// WEFT_POD_CIDRS and pod-cidrs in the file are the same thing.
type Setting struct {
	Key   string
	Help  string
	Value Value
}

// Value reads and prints one setting; it fits flag.Value and pflag.Value.
type Value interface {
	Set(string) error
	String() string
	Type() string
}

// listValue is a Value of several items; lists in the file are given item by item.
type listValue interface {
	Value
	SetList([]string) error
}

// Env returns the environment variable of the setting.
func (s Setting) Env() string {
	return "WEFT_" + strings.ToUpper(strings.ReplaceAll(s.Key, "-", "_"))
}

// Settings lists every setting of c, bound to c's fields.
func (c *Config) Settings() []Setting {
	list := []Setting{
		{"node", "name of this node, unique in the cluster", text(&c.Node)},
		{"cluster", "name of the cluster", text(&c.Cluster)},
		{"cluster-id", "number of the cluster, unique in the mesh", number(&c.ClusterID)},
		{"max-clusters", "clusters the mesh may have: 255 or 511", number(&c.MaxClusters)},
		{"addresses", "addresses of this node on the underlay", list(&c.Addresses, netip.ParseAddr)},
		{"pod-cidrs", "ranges of this node's endpoints, one per family", list(&c.PodCIDRs, netip.ParsePrefix)},
		{"service-cidrs", "ranges of the virtual addresses of services", list(&c.ServiceCIDRs, netip.ParsePrefix)},
		{"family", "families of endpoints: 4, 6 or dual", text(&c.Family)},
		{"mode", "path between nodes: vxlan or native", text(&c.Mode)},
		{"underlay", "device towards the other nodes; empty is the one that has the first address", text(&c.Underlay)},
		{"mtu", "MTU of endpoint devices; 0 follows the underlay", integer(&c.MTU)},
		{"socket-lb", "whose sockets are given backends of services: off, host or all", switchable(&c.SocketLB)},
		{"socket-lb-cgroup", "cgroup (version 2) of the processes that socket-lb is about", text(&c.SocketCgroup)},
		{"bpffs", "mount point of the BPF file system", text(&c.BPFFS)},
		{"state-dir", "where endpoints are kept across restarts", text(&c.StateDir)},
		{"socket", "unix socket of the local API", text(&c.Socket)},
		{"etcd", "etcd client file of the own cluster", text(&c.Etcd)},
		{"clustermesh-dir", "directory with one etcd client file per remote cluster", text(&c.ClusterMeshDir)},
		{"lease-ttl", "how long the node's rows outlive its agent", duration(&c.LeaseTTL)},
		{"metrics", "address:port of the Prometheus metrics; empty is off", text(&c.Metrics)},
		{"log-level", "debug, info, warn or error", text(&c.LogLevel)},
		{"log-format", "text or json", text(&c.LogFormat)},
		{"labels", "label filter, in order; empty is the built-in one", list(&c.Labels, parseText)},
		{"address-rest", "how long a freed address is not handed out again", duration(&c.AddressRest)},
	}
	for _, m := range c.Maps.settings() {
		list = append(list, Setting{m.key, m.help, number(m.value)})
	}
	return list
}

type mapSetting struct {
	key, help string
	value     *uint32
	min       uint32
}

func (m *MapSizes) settings() []mapSetting {
	return []mapSetting{
		{"map-flows", "entries of the flow table", &m.Flows, 1024},
		{"map-young-flows", "entries of the table of flows that began while it was full", &m.YoungFlows, 1024},
		{"map-ipcache", "exact addresses", &m.IPCache, 64},
		{"map-ipcache-prefixes", "prefixes", &m.IPCachePrefixes, 64},
		{"map-nodes", "nodes of the mesh", &m.Nodes, 2},
		{"map-frontends", "frontends of services", &m.Frontends, 1},
		{"map-backends", "backends of services", &m.Backends, 1},
		{"map-fragments", "datagrams in fragments at a time", &m.Fragments, 64},
		{"map-sockets", "what sockets were given, with socket-lb", &m.Sockets, 64},
		{"map-events", "bytes of the event ring", &m.EventBytes, 4096},
		{"map-endpoints", "slots of endpoints, the highest slot plus one", &m.Endpoints, 2},
	}
}

type textValue string

func text(p *string) Value { return (*textValue)(p) }

func (v *textValue) Set(s string) error { *v = textValue(s); return nil }
func (v *textValue) String() string     { return string(*v) }
func (v *textValue) Type() string       { return "string" }

// switchValue is a text that may be "off", which YAML takes for the boolean when it has no quotes.
type switchValue string

func switchable(p *string) Value { return (*switchValue)(p) }

func (v *switchValue) Set(s string) error {
	if s == "false" {
		s = "off"
	}
	*v = switchValue(s)
	return nil
}
func (v *switchValue) String() string { return string(*v) }
func (v *switchValue) Type() string   { return "string" }

type durationValue time.Duration

func duration(p *time.Duration) Value { return (*durationValue)(p) }

func (v *durationValue) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 30s or 15m", s)
	}
	*v = durationValue(d)
	return nil
}
func (v *durationValue) String() string { return time.Duration(*v).String() }
func (v *durationValue) Type() string   { return "duration" }

type numberValue[T uint16 | uint32] struct {
	p    *T
	bits int
}

func number[T uint16 | uint32](p *T) Value {
	bits := 32
	if ^T(0) == T(1<<16-1) {
		bits = 16
	}
	return numberValue[T]{p, bits}
}

func (v numberValue[T]) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, v.bits)
	if err != nil {
		return fmt.Errorf("%q is not a number within 0 to %d", s, uint64(1)<<v.bits-1)
	}
	*v.p = T(n)
	return nil
}
func (v numberValue[T]) String() string {
	if v.p == nil { // pflag asks a zero value
		return ""
	}
	return strconv.FormatUint(uint64(*v.p), 10)
}
func (v numberValue[T]) Type() string { return "number" }

type integerValue int

func integer(p *int) Value { return (*integerValue)(p) }

func (v *integerValue) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil {
		return fmt.Errorf("%q is not a number", s)
	}
	*v = integerValue(n)
	return nil
}
func (v *integerValue) String() string { return strconv.Itoa(int(*v)) }
func (v *integerValue) Type() string   { return "number" }

type listOf[T any] struct {
	p     *[]T
	parse func(string) (T, error)
}

func list[T any](p *[]T, parse func(string) (T, error)) Value { return listOf[T]{p, parse} }

func parseText(s string) (string, error) { return s, nil }

// Set takes items separated by commas and replaces the list.
func (v listOf[T]) Set(s string) error {
	if strings.TrimSpace(s) == "" {
		return v.SetList(nil)
	}
	return v.SetList(strings.Split(s, ","))
}

func (v listOf[T]) SetList(items []string) error {
	out := make([]T, 0, len(items))
	for _, item := range items {
		x, err := v.parse(strings.TrimSpace(item))
		if err != nil {
			return fmt.Errorf("%q: %w", item, err)
		}
		out = append(out, x)
	}
	*v.p = out
	return nil
}

func (v listOf[T]) String() string {
	if v.p == nil {
		return ""
	}
	var items []string
	for _, x := range *v.p {
		items = append(items, fmt.Sprint(x))
	}
	return strings.Join(items, ",")
}
func (v listOf[T]) Type() string { return "list" }
