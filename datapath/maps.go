// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"path/filepath"

	"github.com/cilium/ebpf"

	"github.com/weft-net/weft/bpf"
)

// Maps are the pinned maps of a node, open for reading. They need no agent.
type Maps struct {
	open map[string]*ebpf.Map // by name
}

// ErrNoMaps says that nothing of a node is pinned in a BPF file system that could be read, as
// before a node's first start. Any other error of OpenMaps says nothing of what is there.
var ErrNoMaps = errors.New("no maps are pinned")

// OpenMaps opens the maps of a node that are in force. bpfRoot may be empty for /sys/fs/bpf. The
// caller closes them. Errors are ErrNoMaps, or name the step.
func OpenMaps(bpfRoot, node string) (*Maps, error) {
	if bpfRoot == "" {
		bpfRoot = DefaultConfig().BPFRoot
	}
	if err := isBPFFS(bpfRoot); err != nil {
		return nil, fmt.Errorf("maps of node %s: %w", node, err)
	}
	p := pinsOf(bpfRoot, node)
	versions, err := p.versions()
	if err != nil {
		return nil, fmt.Errorf("maps of node %s: %w", node, err)
	}
	if len(versions) == 0 {
		return nil, fmt.Errorf("maps of node %s: %w below %s", node, ErrNoMaps, bpfRoot)
	}
	m := &Maps{open: map[string]*ebpf.Map{}}
	for _, name := range []string{
		"flows", "flows_young", "endpoints", "ipcache", "ipcache_prefix", "nodes", "frontends",
		"backends", "generation", "runtime", "counters", "events_lost",
	} {
		pin := filepath.Join(p.maps(versions[len(versions)-1]), name)
		if m.open[name], err = ebpf.LoadPinnedMap(pin, &ebpf.LoadPinOptions{ReadOnly: true}); err != nil {
			m.Close()
			return nil, fmt.Errorf("maps of node %s: map %s: %w", node, name, err)
		}
	}
	return m, nil
}

// Close closes the maps.
func (m *Maps) Close() {
	for _, open := range m.open {
		if open != nil {
			open.Close()
		}
	}
}

// FlowEntry is one direction of one connection.
type FlowEntry struct {
	Source, Destination netip.AddrPort
	Protocol            uint8
	Slot                uint16 // endpoint that sent it; 0: network or host
	Young               bool   // still in the map that evicts
	// Translated is the new destination, or of a reply the new source.
	Translated netip.AddrPort
	Reply      bool
	State      []string // words for what else is known of the connection
	Identity   uint32   // of the source
	ServiceID  uint16
	NodeIndex  uint16
	IfIndex    uint32 // device that packets leave by; 0: the host's stack
	MTU        uint16
	Packets    uint32
	Bytes      uint64
	Stale      bool // rows changed since it was decided: the next packet decides again
}

// rows walks a map in batches.
func rows[K comparable, V any](m *ebpf.Map, name string) iter.Seq2[struct {
	K K
	V V
}, error] {
	type row = struct {
		K K
		V V
	}
	return func(yield func(row, error) bool) {
		err := rowMap[K, V]{name, m}.each(func(keys []K, values []V) bool {
			for i, k := range keys {
				if !yield(row{k, values[i]}, nil) {
					return false
				}
			}
			return true
		})
		if err != nil {
			yield(row{}, err)
		}
	}
}

// Flows walks over all flow entries. An entry that changes meanwhile may be missed or come twice.
func (m *Maps) Flows() iter.Seq2[FlowEntry, error] {
	return func(yield func(FlowEntry, error) bool) {
		var generation uint32
		if err := m.open["generation"].Lookup(uint32(0), &generation); err != nil {
			yield(FlowEntry{}, bpf.WriteError("generation", m.open["generation"], err))
			return
		}
		for _, name := range []string{"flows", "flows_young"} {
			for r, err := range rows[bpf.FlowKey, bpf.Flow](m.open[name], name) {
				f := flowEntry(r.K, r.V, generation)
				f.Young = name == "flows_young"
				if !yield(f, err) || err != nil {
					return
				}
			}
		}
	}
}

// flowEntry makes an entry readable.
func flowEntry(k bpf.FlowKey, v bpf.Flow, generation uint32) FlowEntry {
	f := FlowEntry{
		Source:      addrPort(k.Source, k.SourcePort),
		Destination: addrPort(k.Destination, k.DestinationPort),
		Protocol:    k.Protocol,
		Slot:        k.From,
		Reply:       v.State&bpf.FlowReply != 0,
		Identity:    v.Identity,
		ServiceID:   v.Service,
		NodeIndex:   v.Node,
		IfIndex:     v.Ifindex,
		MTU:         v.Mtu,
		Packets:     v.Packets,
		Bytes:       v.Bytes,
		Stale:       v.Generation != generation,
	}
	if v.State&(bpf.FlowSource|bpf.FlowDestination) != 0 {
		f.Translated = addrPort(v.Address, v.Port)
	}
	for _, s := range []struct {
		bit  uint16
		word string
	}{
		{bpf.FlowReplied, "replied"},
		{bpf.FlowFin, "fin"},
		{bpf.FlowTwinFin, "peer-fin"},
		{bpf.FlowReset, "reset"},
		{bpf.FlowLoopback, "loopback"},
		{bpf.FlowTunnel, "tunnel"},
		{bpf.FlowClosed, "closed"},
		{bpf.FlowRefused, "refused"},
	} {
		if v.State&s.bit != 0 {
			f.State = append(f.State, s.word)
		}
	}
	return f
}

// IPCacheRow is what the kernel knows of an address or prefix.
type IPCacheRow struct {
	Prefix    netip.Prefix
	Identity  uint32
	NodeIndex uint32
	Node      netip.Addr // of NodeIndex; zero: none
	Slot      uint16     // local endpoint; 0: none
	Host      bool       // an address of this node
	OtherNode bool       // an address of another node
}

// IPCache walks over the rows of ipcache and ipcache_prefix.
func (m *Maps) IPCache() iter.Seq2[IPCacheRow, error] {
	return func(yield func(IPCacheRow, error) bool) {
		nodes := map[uint32]netip.Addr{}
		for n, err := range m.Nodes() {
			if err != nil {
				yield(IPCacheRow{}, err)
				return
			}
			nodes[n.Index] = n.Addr
		}
		row := func(p netip.Prefix, v bpf.IPCacheEntry) IPCacheRow {
			r := IPCacheRow{
				Prefix: p, Identity: v.Identity, NodeIndex: v.Node, Slot: v.Endpoint,
				Host: v.Flags&bpf.IPCacheHost != 0, OtherNode: v.Flags&bpf.IPCacheNode != 0,
			}
			if v.Node != selfIndex {
				r.Node = nodes[v.Node]
			}
			return r
		}
		for r, err := range rows[bpf.AddressKey, bpf.IPCacheEntry](m.open["ipcache"], "ipcache") {
			if err != nil {
				yield(IPCacheRow{}, err)
				return
			}
			if !yield(row(hostPrefix(bpf.Addr(r.K.Address)), r.V), nil) {
				return
			}
		}
		for r, err := range rows[bpf.PrefixKey, bpf.IPCacheEntry](m.open["ipcache_prefix"], "ipcache_prefix") {
			if err != nil {
				yield(IPCacheRow{}, err)
				return
			}
			if !yield(row(prefixOfKey(r.K), r.V), nil) {
				return
			}
		}
	}
}

// NodeRow is what the kernel knows of another node.
type NodeRow struct {
	Index  uint32
	Addr   netip.Addr
	Tunnel bool
	MTU    uint16 // of the path in the underlay, bytes; 0: not known
}

// Nodes walks over the nodes that rows of the ipcache may name.
func (m *Maps) Nodes() iter.Seq2[NodeRow, error] {
	return func(yield func(NodeRow, error) bool) {
		for r, err := range rows[uint32, bpf.Node](m.open["nodes"], "nodes") {
			n := NodeRow{Index: r.K, Addr: rowAddr(r.V), Tunnel: r.V.Flags&bpf.NodeTunnel != 0, MTU: r.V.Mtu}
			if err == nil && (n.Index == selfIndex || !n.Addr.IsValid()) {
				continue
			}
			if !yield(n, err) || err != nil {
				return
			}
		}
	}
}

// EndpointRow is what the kernel knows of an endpoint of this node.
type EndpointRow struct {
	Slot       uint16
	Identity   uint32 // 0: not known yet, nothing may pass
	IPv4, IPv6 netip.Addr
	MAC        [6]byte
	MTU        uint16
}

// Endpoints walks over the slots that are in use, those of endpoints without an identity yet included.
func (m *Maps) Endpoints() iter.Seq2[EndpointRow, error] {
	return func(yield func(EndpointRow, error) bool) {
		for r, err := range rows[uint32, bpf.Endpoint](m.open["endpoints"], "endpoints") {
			if err == nil && r.V == (bpf.Endpoint{}) {
				continue
			}
			row := EndpointRow{
				Slot: uint16(r.K), Identity: r.V.Identity, IPv4: bpf.Addr(r.V.Ipv4), IPv6: bpf.Addr(r.V.Ipv6),
				MAC: r.V.Mac, MTU: r.V.Mtu,
			}
			if !yield(row, err) || err != nil {
				return
			}
		}
	}
}

// ServiceRow is a frontend with the backends that take new flows, in the order of their slots.
type ServiceRow struct {
	Frontend netip.AddrPort
	Protocol uint8
	ID       uint32
	Backends []netip.AddrPort
}

// Services walks over the frontends.
func (m *Maps) Services() iter.Seq2[ServiceRow, error] {
	return func(yield func(ServiceRow, error) bool) {
		for r, err := range rows[bpf.FrontendKey, bpf.Frontend](m.open["frontends"], "frontends") {
			if err != nil {
				yield(ServiceRow{}, err)
				return
			}
			if r.V.Service == 0 {
				continue // says only that the address is a service's
			}
			s := ServiceRow{Frontend: addrPort(r.K.Address, r.K.Port), Protocol: r.K.Protocol, ID: r.V.Service}
			for slot := range r.V.Count {
				var b bpf.Backend
				// A slot that went away since is left out.
				if m.open["backends"].Lookup(bpf.BackendKey{Service: r.V.Service, Slot: slot}, &b) == nil {
					s.Backends = append(s.Backends, backendOf(b))
				}
			}
			if !yield(s, nil) {
				return
			}
		}
	}
}

// Counters are the totals that are not zero.
func (m *Maps) Counters() ([]CounterTotal, error) { return readCounters(m.open["counters"]) }

// EventsLost is the number of events that found the ring full.
func (m *Maps) EventsLost() (uint64, error) { return readLost(m.open["events_lost"]) }
