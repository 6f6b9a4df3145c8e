// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"

	"github.com/weft-net/weft/bpf"
)

// Identities that the datapath itself knows.
const (
	identityHost       = 1
	identityWorld      = 2
	identityRemoteNode = 6
)

// Node is the state of one node's datapath: rows that the agent writes, and what packets leave.
// The test that owns it writes the exported fields between packets.
type Node struct {
	Config bpf.Config

	Endpoints  map[uint16]bpf.Endpoint // by slot
	IPCache    map[netip.Addr]bpf.IPCacheEntry
	Prefixes   map[netip.Prefix]bpf.IPCacheEntry
	Nodes      map[uint16]bpf.Node
	Frontends  map[bpf.FrontendKey]bpf.Frontend
	Backends   map[bpf.BackendKey]bpf.Backend
	Generation uint32
	Pressure   bool

	Flows    map[bpf.FlowKey]*bpf.Flow
	Young    map[bpf.FlowKey]*bpf.Flow
	MayYoung bool // there may be young flows: the hint that programs set and the agent clears

	Counters map[uint32]bpf.Counter // by bpf.CounterIndex
	Events   []bpf.FlowEvent        // of the last packet, without time

	Now uint32 // ticks

	// Route is the kernel's answer for a packet from source to destination.
	Route func(source, destination netip.Addr) Route
	// Choose picks one of count backends, the first to be tried for a connection.
	Choose func(key bpf.FlowKey, count uint32) uint32

	fragments map[fragmentID][2]uint16
	devices   map[uint32]bool // native devices whose address is known
	macs      map[uint32][6]byte
	hops      map[netip.Addr]hop // by destination on the underlay
}

// Route is what the kernel knows of the way to a destination.
type Route struct {
	Found     bool
	Neighbour bool // the next hop's address is known
	Ifindex   uint32
	NextHop   netip.Addr
	MAC       [6]byte // of the next hop
	Source    [6]byte // of the device
	MTU       int
}

// hop is a route that holds for a while.
type hop struct {
	Route
	until uint32
}

type fragmentID struct {
	source, destination [16]byte
	id                  uint32
	protocol, family    uint8
	from                uint16
}

// NewNode is a node without rows.
func NewNode(cfg bpf.Config) *Node {
	return &Node{
		Config:    cfg,
		Endpoints: map[uint16]bpf.Endpoint{},
		IPCache:   map[netip.Addr]bpf.IPCacheEntry{},
		Prefixes:  map[netip.Prefix]bpf.IPCacheEntry{},
		Nodes:     map[uint16]bpf.Node{},
		Frontends: map[bpf.FrontendKey]bpf.Frontend{},
		Backends:  map[bpf.BackendKey]bpf.Backend{},
		Flows:     map[bpf.FlowKey]*bpf.Flow{},
		Young:     map[bpf.FlowKey]*bpf.Flow{},
		Counters:  map[uint32]bpf.Counter{},
		fragments: map[fragmentID][2]uint16{},
		devices:   map[uint32]bool{},
		macs:      map[uint32][6]byte{},
		hops:      map[netip.Addr]hop{},
	}
}

// whose is the row of an address: an exact one, else that of the longest prefix.
func (n *Node) whose(a netip.Addr) (bpf.IPCacheEntry, bool) {
	if row, ok := n.IPCache[a]; ok {
		return row, true
	}
	best, found := bpf.IPCacheEntry{}, -1
	for prefix, row := range n.Prefixes {
		if prefix.Contains(a) && prefix.Bits() > found {
			best, found = row, prefix.Bits()
		}
	}
	return best, found >= 0
}

// slot is the endpoint slot of a device, 0 if it is not an endpoint's.
func (n *Node) slot(ifindex uint32) uint16 {
	if s := ifindex - n.Config.EndpointIfindexBase; s < n.Config.EndpointSlots {
		return uint16(s)
	}
	return 0
}

// find returns a connection's entry in one direction and whether it is a young one.
func (n *Node) find(key bpf.FlowKey) (flow *bpf.Flow, young bool) {
	if flow := n.Flows[key]; flow != nil {
		return flow, false
	}
	if flow := n.Young[key]; flow != nil {
		return flow, true
	}
	return nil, false
}

// put stores an entry: in the table it is in, or a new one where it begins. The table that never
// evicts may be full.
func (n *Node) put(key bpf.FlowKey, flow bpf.Flow) {
	begins := n.Young
	switch {
	case n.Flows[key] != nil, n.Young[key] == nil && !n.Pressure && len(n.Flows) < int(n.Config.MaxFlows):
		begins = n.Flows
	default:
		n.MayYoung = true
	}
	begins[key] = &flow
}
