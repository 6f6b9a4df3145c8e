// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"github.com/google/go-cmp/cmp"
)

func TestEvents_OnePerChange(t *testing.T) {
	r := newRig(t, small(), modes()[0])
	client, server := netip.AddrPortFrom(ipv4.pod, 1000), netip.AddrPortFrom(ipv4.pod2, 80)
	back := tcp(server, client, syn|ack)
	back.From = podMAC2
	script(t, r, []step{
		{at: fromPod, in: tcp(client, server, syn), verdict: redirect},
		{at: fromPod, in: tcp(client, server, syn), verdict: redirect},
		{at: fromPod2, in: back, verdict: redirect},
		{at: fromPod, in: tcp(client, server, fin|ack), verdict: redirect},
		{at: fromPod2, in: *back.change(func(f *frame) { f.Flags = fin | ack }), verdict: redirect},
		{at: fromPod, in: tcp(client, server, ack), verdict: redirect},
		{at: fromPod, in: tcp(client, server, rst), verdict: redirect},
		{at: fromPod, in: tcp(netip.AddrPortFrom(ipv4.world, 1), server, syn), verdict: dropped, reason: DropSource},
	})
	var got []string
	for _, e := range r.events() {
		got = append(got, fmt.Sprintf("%d %v:%d>%v:%d %d>%d slots %d>%d %v packets %d/%d", e.Kind, Addr(e.Source), Port(e.SourcePort),
			Addr(e.Destination), Port(e.DestinationPort), e.SourceIdentity, e.DestinationIdentity, e.SourceEndpoint, e.DestinationEndpoint,
			DropReason(e.Reason), e.Packets, e.ReplyPackets))
	}
	want := []string{
		"1 10.1.0.1:1000>10.1.0.2:80 1001>1002 slots 1>2 none packets 0/0",
		"2 10.1.0.1:1000>10.1.0.2:80 1001>1002 slots 1>2 none packets 3/1",
		"3 198.51.100.1:1>10.1.0.2:80 0>0 slots 1>0 source packets 0/0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// events drains the ring buffer.
func (r *rig) events() (events []FlowEvent) {
	r.t.Helper()
	reader, err := ringbuf.NewReader(r.Events)
	must(r.t, err)
	defer reader.Close()
	reader.SetDeadline(time.Now())
	for {
		record, err := reader.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return events
		}
		must(r.t, err)
		var e FlowEvent
		must(r.t, binary.Read(bytes.NewReader(record.RawSample), binary.LittleEndian, &e))
		events = append(events, e)
	}
}
