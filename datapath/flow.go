// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/bpf"
)

// How long a flow stays after its last packet.
const (
	idleTCP      = 6 * time.Hour
	idleSYN      = 60 * time.Second // no reply was seen
	idleClosing  = 10 * time.Second // both ends said FIN, or one RST
	idlePressure = 1 * time.Second  // the same while the table is nearly full
	idleOther    = 60 * time.Second // UDP, ICMP and whatever else
)

// idleLimit is how long an entry may be idle.
func idleLimit(key bpf.FlowKey, f bpf.Flow, pressure bool) time.Duration {
	closing := f.State&bpf.FlowReset != 0 ||
		f.State&bpf.FlowFin != 0 && f.State&bpf.FlowTwinFin != 0
	switch {
	case key.Protocol != unix.IPPROTO_TCP:
		return idleOther
	case closing && pressure:
		return idlePressure
	case closing:
		return idleClosing
	case f.State&bpf.FlowReplied == 0:
		return idleSYN
	}
	return idleTCP
}

// idle is how long an entry has been idle at a time of the flow clock.
func idle(f bpf.Flow, now, ticksPerSecond uint32) time.Duration {
	ticks := int32(now - f.Seen) // the clock wraps, and seen may be a little newer than now
	if ticks < 0 {
		return 0
	}
	return time.Duration(ticks) * time.Second / time.Duration(ticksPerSecond)
}

// twinKey is the key of a connection's entry in the other direction: source and destination
// swapped, as they are after translation, coming in by the device that the packets leave by.
func twinKey(key bpf.FlowKey, f bpf.Flow, slots uint32, loopback4, loopback6 [16]byte) bpf.FlowKey {
	twin := bpf.FlowKey{
		Source:          key.Destination,
		SourcePort:      key.DestinationPort,
		Destination:     key.Source,
		DestinationPort: key.SourcePort,
		Protocol:        key.Protocol,
		Family:          key.Family,
	}
	if slot := f.Ifindex - EndpointIfIndexBase; slot < slots {
		twin.From = uint16(slot)
	}
	switch {
	case f.State&bpf.FlowLoopback != 0 && f.State&bpf.FlowDestination != 0:
		// An endpoint that is its own backend: the source is translated too.
		twin.Source, twin.SourcePort = f.Address, f.Port
		twin.Destination = loopback6
		if key.Family == 4 {
			twin.Destination = loopback4
		}
	case f.State&bpf.FlowLoopback != 0 && f.State&bpf.FlowSource != 0:
		twin.Source, twin.Destination = key.Source, f.Address
		twin.DestinationPort = f.Port
	case f.State&bpf.FlowDestination != 0:
		twin.Source, twin.SourcePort = f.Address, f.Port
	case f.State&bpf.FlowSource != 0:
		twin.Destination, twin.DestinationPort = f.Address, f.Port
	}
	return twin
}

// touches says that an entry leads from or to an endpoint: by its slot, by its device, or by one of
// its addresses.
func touches(key bpf.FlowKey, f bpf.Flow, slot uint16, addrs [][16]byte) bool {
	if key.From == slot || f.Ifindex == EndpointIfIndexBase+uint32(slot) {
		return true
	}
	for _, a := range addrs {
		if key.Source == a || key.Destination == a || f.Address == a {
			return true
		}
	}
	return false
}
