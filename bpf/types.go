// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"math/bits"
	"net/netip"
)

// The structures that programs and maps share, generated from lib/*.h, where each field is
// explained. Ports and the ids of fragments are in network byte order: use Port.
type (
	AddressKey   = weftAddressKey
	Backend      = weftBackend
	BackendKey   = weftBackendKey
	Counter      = weftCounter
	Device       = weftDevice
	Endpoint     = weftEndpoint
	Flow         = weftFlow
	FlowEvent    = weftFlowEvent
	FlowKey      = weftFlowKey
	Fragment     = weftFragment
	FragmentKey  = weftFragmentKey
	Hop          = weftHop
	Frontend     = weftFrontend
	FrontendKey  = weftFrontendKey
	IPCacheEntry = weftIpcacheEntry
	Node         = weftNode
	PrefixKey    = weftPrefixKey
	Settings     = weftSettings
)

// States of a flow entry (Flow.State).
const (
	FlowReply       = uint16(weftFlowStateFLOW_REPLY)
	FlowReplied     = uint16(weftFlowStateFLOW_REPLIED)
	FlowFin         = uint16(weftFlowStateFLOW_FIN)
	FlowTwinFin     = uint16(weftFlowStateFLOW_TWIN_FIN)
	FlowReset       = uint16(weftFlowStateFLOW_RESET)
	FlowSource      = uint16(weftFlowStateFLOW_SOURCE)
	FlowDestination = uint16(weftFlowStateFLOW_DESTINATION)
	FlowLoopback    = uint16(weftFlowStateFLOW_LOOPBACK)
	FlowTunnel      = uint16(weftFlowStateFLOW_TUNNEL)
	FlowLeaves      = uint16(weftFlowStateFLOW_LEAVES)
	FlowClosed      = uint16(weftFlowStateFLOW_CLOSED)
	FlowRefused     = uint16(weftFlowStateFLOW_REFUSED)
	FlowOpened      = uint16(weftFlowStateFLOW_OPENED)
	FlowHost        = uint16(weftFlowStateFLOW_HOST)
)

// Flags of an ipcache row (IPCacheEntry.Flags).
const (
	IPCacheHost = uint16(weftIpcacheFlagsIPCACHE_HOST)
	IPCacheNode = uint16(weftIpcacheFlagsIPCACHE_NODE)
)

// Flags of a node row (Node.Flags).
const (
	NodeTunnel = uint32(weftNodeFlagsNODE_TUNNEL)
	NodeIPv6   = uint32(weftNodeFlagsNODE_IPV6)
)

// Kinds of an event (FlowEvent.Kind).
const (
	EventNew     = uint8(weftEventKindEVENT_NEW)
	EventClosed  = uint8(weftEventKindEVENT_CLOSED)
	EventRefused = uint8(weftEventKindEVENT_REFUSED)
)

// Directions of a counter and of an event.
const (
	Egress     = uint8(weftDirectionDIRECTION_EGRESS)
	Ingress    = uint8(weftDirectionDIRECTION_INGRESS)
	Directions = uint8(weftDirectionDIRECTIONS)
)

// CounterIndex is the index into the counters map for a reason and a direction.
func CounterIndex(reason DropReason, direction uint8) uint32 {
	return uint32(reason)*uint32(Directions) + uint32(direction)
}

// Port turns a port (or any 16 bits) from host to network byte order and back.
func Port(p uint16) uint16 { return bits.ReverseBytes16(p) }

// Address is the form of an address in keys and values: IPv4 as v4-mapped. The zero Addr is all
// zeroes, which means "none".
func Address(a netip.Addr) [16]byte {
	if !a.IsValid() {
		return [16]byte{}
	}
	return a.As16()
}

// Addr is the reverse of Address: v4-mapped addresses come out as IPv4, all zeroes as the zero Addr.
func Addr(b [16]byte) netip.Addr {
	if b == [16]byte{} {
		return netip.Addr{}
	}
	return netip.AddrFrom16(b).Unmap()
}

// Prefix is the key of ipcache_prefix for a prefix: 96 bits longer for IPv4.
func Prefix(p netip.Prefix) PrefixKey {
	length := p.Bits()
	if p.Addr().Is4() {
		length += 96
	}
	return PrefixKey{Length: uint32(length), Address: p.Masked().Addr().As16()}
}

// NewFlowKey is the key of packets from source to destination that come in by endpoint slot from,
// or, for 0, from the network or the host.
func NewFlowKey(source, destination netip.AddrPort, protocol uint8, from uint16) FlowKey {
	family := uint8(6)
	if source.Addr().Unmap().Is4() {
		family = 4
	}
	return FlowKey{
		Source: Address(source.Addr()), Destination: Address(destination.Addr()),
		SourcePort: Port(source.Port()), DestinationPort: Port(destination.Port()),
		Protocol: protocol, Family: family, From: from,
	}
}
