// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/weft-net/weft/bpf"
)

// Event is what the kernel reports of a flow. Source and Destination are those of the connection's
// opener, before translation.
type Event struct {
	Time        time.Time
	Kind        EventKind
	Reason      bpf.DropReason // of a refused one
	Direction   string         // egress or ingress, as seen from this node's endpoints
	Protocol    uint8
	Source      netip.AddrPort // the port of ICMP echo is its id
	Destination netip.AddrPort
	// Backend is where the packets really go; the zero AddrPort if nothing is translated.
	Backend   netip.AddrPort
	ServiceID uint16 // see Datapath.ServiceName; 0: none

	SourceIdentity, DestinationIdentity uint32
	SourceSlot, DestinationSlot         uint16 // endpoints of this node; 0: elsewhere
	NodeIndex                           uint16 // see Datapath.NodeAddr; 0: none
	TCPFlags                            uint8  // of the packet that caused the event

	// Counts of a closed connection, from its opener and to it.
	Packets, Bytes           uint64
	ReplyPackets, ReplyBytes uint64
}

// EventKind says what happened.
type EventKind uint8

// The kinds, as in the kernel.
const (
	EventNew     = EventKind(bpf.EventNew)
	EventClosed  = EventKind(bpf.EventClosed)
	EventRefused = EventKind(bpf.EventRefused)
)

func (k EventKind) String() string {
	switch k {
	case EventNew:
		return "new"
	case EventClosed:
		return "closed"
	case EventRefused:
		return "refused"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// eventPoll is how often the ring is read: the kernel wakes the reader only when it fills up.
const eventPoll = 20 * time.Millisecond

// ReadEvents gives every event to f until ctx ends or f returns an error, which it returns. There
// is one ring: only one reader at a time sees all events. It waits for Ready first. The end of Run
// does not end it: the programs go on, and so do their events.
func (d *Datapath) ReadEvents(ctx context.Context, f func(Event) error) error {
	e, done, err := d.await(ctx)
	if err != nil {
		return err
	}
	r, err := ringbuf.NewReader(e.objects.Events) // has a mapping of its own from here on
	done()
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer r.Close()
	boot := bootTime()
	var record ringbuf.Record
	for ctx.Err() == nil {
		r.SetDeadline(time.Now().Add(eventPoll))
		switch err := r.ReadInto(&record); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			boot = bootTime() // follows corrections of the clock
			continue
		case err != nil:
			return fmt.Errorf("read events: %w", err)
		}
		ev, err := decodeEvent(record.RawSample, boot)
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		if err := f(ev); err != nil {
			return err
		}
	}
	return nil
}

// bootTime is when the kernel's monotonic clock was zero.
func bootTime() time.Time { return time.Now().Add(-monotonic()) }

// decodeEvent reads the kernel's form of an event.
func decodeEvent(raw []byte, boot time.Time) (Event, error) {
	var k bpf.FlowEvent
	if len(raw) < int(unsafe.Sizeof(k)) {
		return Event{}, fmt.Errorf("event of %d bytes: want %d", len(raw), unsafe.Sizeof(k))
	}
	if _, err := binary.Decode(raw, binary.NativeEndian, &k); err != nil {
		return Event{}, err
	}
	ev := Event{
		Time:        boot.Add(time.Duration(k.Time)),
		Kind:        EventKind(k.Kind),
		Reason:      bpf.DropReason(k.Reason),
		Direction:   directionName(k.Direction),
		Protocol:    k.Protocol,
		Source:      addrPort(k.Source, k.SourcePort),
		Destination: addrPort(k.Destination, k.DestinationPort),
		ServiceID:   k.Service,

		SourceIdentity:      k.SourceIdentity,
		DestinationIdentity: k.DestinationIdentity,
		SourceSlot:          k.SourceEndpoint,
		DestinationSlot:     k.DestinationEndpoint,
		NodeIndex:           k.Node,
		TCPFlags:            k.TcpFlags,

		Packets:      uint64(k.Packets),
		Bytes:        k.Bytes,
		ReplyPackets: uint64(k.ReplyPackets),
		ReplyBytes:   k.ReplyBytes,
	}
	if k.Backend != [16]byte{} {
		ev.Backend = addrPort(k.Backend, k.BackendPort)
	}
	return ev, nil
}

// addrPort reads an address and a port in network byte order.
func addrPort(a [16]byte, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(bpf.Addr(a), bpf.Port(port))
}
