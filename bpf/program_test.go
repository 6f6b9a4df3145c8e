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

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Verdicts of a program.
const (
	pass     = 0
	dropped  = 2
	redirect = 7
)

var compareFrames = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

// hook is a program on one of the rig's devices.
type hook int

const (
	fromPod hook = iota
	fromPod2
	toPod
	fromWire
	fromVXLAN
	fromHost
)

func (r *rig) hook(h hook) (*ebpf.Program, uint32) {
	switch h {
	case fromPod:
		return r.FromEndpoint, lxc(1)
	case fromPod2:
		return r.FromEndpoint, lxc(2)
	case toPod:
		return r.ToEndpoint, lxc(1)
	case fromWire:
		return r.FromNetdev, r.wire
	case fromVXLAN:
		return r.FromOverlay, r.wire // any device: the program asks for none
	default:
		return r.FromHost, r.hosts
	}
}

// step is one frame given to one program, and what has to come of it.
type step struct {
	at      hook
	in      frame
	verdict uint32
	out     *frame     // nil: not looked at
	reason  DropReason // with dropped, or with redirect of an answer
}

// script runs steps in order on a fresh rig.
func script(t *testing.T, r *rig, steps []step) {
	t.Helper()
	for i, s := range steps {
		direction := Egress
		if s.at == toPod || s.at == fromWire || s.at == fromVXLAN {
			direction = Ingress
		}
		before := drops(t, r.Objects, s.reason, direction)
		program, ifindex := r.hook(s.at)
		verdict, raw := r.run(program, ifindex, s.in.encode())
		if verdict != s.verdict {
			t.Errorf("step %d: verdict %d, want %d", i, verdict, s.verdict)
		}
		if s.out != nil {
			if diff := cmp.Diff(*s.out, decode(raw), compareFrames); diff != "" {
				t.Errorf("step %d: frame (-want +got):\n%s", i, diff)
			}
		}
		if s.reason != DropNone {
			if got := drops(t, r.Objects, s.reason, direction) - before; got != 1 {
				t.Errorf("step %d: %d drops for %v, want 1", i, got, s.reason)
			}
		}
	}
}

// pick returns the addresses of a family.
func pick(family int) addresses {
	if family == 4 {
		return ipv4
	}
	return ipv6
}

func eachFamily(t *testing.T, f func(t *testing.T, a addresses)) {
	for _, family := range []int{4, 6} {
		t.Run(fmt.Sprintf("ipv%d", family), func(t *testing.T) { f(t, pick(family)) })
	}
}

// change returns a copy of a frame, changed.
func (f frame) change(c func(*frame)) *frame {
	c(&f)
	return &f
}

func tcp(from, to netip.AddrPort, flags uint8) frame {
	return frame{
		To: gatewayMAC, From: podMAC, Source: from.Addr(), Dest: to.Addr(), TTL: 64, Protocol: protoTCP,
		Sport: from.Port(), Dport: to.Port(), Flags: flags,
	}
}

// aged is how a frame leaves on the way to the peer, or is delivered.
func aged(f frame, from, to [6]byte) *frame {
	return f.change(func(f *frame) { f.From, f.To, f.TTL = from, to, f.TTL-1 })
}

func TestFromEndpoint_Native(t *testing.T) {
	eachFamily(t, func(t *testing.T, a addresses) {
		r := newRig(t, small(), modes[0])
		out := tcp(netip.AddrPortFrom(a.pod, 1000), netip.AddrPortFrom(a.other, 80), syn)
		back := tcp(netip.AddrPortFrom(a.other, 80), netip.AddrPortFrom(a.pod, 1000), syn|ack)
		back.From, back.To = peerMAC, wireMAC
		script(t, r, []step{
			// The kernel writes the link's addresses of the first packet after the program.
			{at: fromPod, in: out, verdict: redirect, out: aged(out, podMAC, gatewayMAC)},
			{at: fromPod, in: out, verdict: redirect, out: aged(out, wireMAC, peerMAC)},
			{at: fromWire, in: back, verdict: redirect, out: back.change(func(f *frame) { f.From, f.To = gatewayMAC, podMAC })},
		})
		var forward, reply Flow
		key := NewFlowKey(netip.AddrPortFrom(a.pod, 1000), netip.AddrPortFrom(a.other, 80), protoTCP, 1)
		must(t, r.Flows.Lookup(key, &forward))
		must(t, r.Flows.Lookup(NewFlowKey(netip.AddrPortFrom(a.other, 80), netip.AddrPortFrom(a.pod, 1000), protoTCP, 0), &reply))
		volatile := cmpopts.IgnoreFields(Flow{}, "Generation", "Seen", "RouteUntil", "Bytes")
		if diff := cmp.Diff(Flow{
			Identity: podIdentity, Ifindex: r.wire, Mac: peerMAC, State: FlowLeaves | FlowOpened | FlowReplied, Node: 1, Mtu: 1500, Packets: 2,
		}, forward, volatile); diff != "" {
			t.Errorf("entry of the opener (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(Flow{
			Identity: otherIdentity, Ifindex: lxc(1), Mac: podMAC, State: FlowReply | FlowOpened | FlowReplied, Packets: 1,
		}, reply, volatile); diff != "" {
			t.Errorf("entry of the reply (-want +got):\n%s", diff)
		}
	})
}

func TestFromEndpoint_Tunnel(t *testing.T) {
	for _, m := range modes[1:] {
		t.Run(m.name, func(t *testing.T) {
			outer := pick(4)
			if m.flags&NodeIPv6 != 0 {
				outer = pick(6)
			}
			eachFamily(t, func(t *testing.T, a addresses) {
				r := newRig(t, small(), m)
				out := tcp(netip.AddrPortFrom(a.pod, 1000), netip.AddrPortFrom(a.other, 80), syn)
				program, ifindex := r.hook(fromPod)
				r.run(program, ifindex, out.encode())
				verdict, raw := r.run(program, ifindex, out.encode())
				if verdict != redirect {
					t.Fatalf("verdict %d, want %d", verdict, redirect)
				}
				got := decode(raw)
				if got.VXLAN == nil {
					t.Fatalf("not tunnelled: %+v", got)
				}
				inner := gatewayMAC
				inner[5] ^= 0xff
				want := aged(out, inner, gatewayMAC)
				want.VXLAN = &vxlan{
					To: peerMAC, From: wireMAC, Source: outer.self, Dest: outer.peer, Sport: got.VXLAN.Sport, Dport: 8472, VNI: podIdentity,
				}
				if diff := cmp.Diff(*want, got, compareFrames); diff != "" {
					t.Errorf("frame (-want +got):\n%s", diff)
				}
				if got.VXLAN.Sport < 32768 {
					t.Errorf("outer source port %d, want one above 32768", got.VXLAN.Sport)
				}
			})
		})
	}
}

func TestFromNetdev_Tunnel(t *testing.T) {
	for _, m := range modes[1:] {
		t.Run(m.name, func(t *testing.T) {
			outer := pick(4)
			if m.flags&NodeIPv6 != 0 {
				outer = pick(6)
			}
			eachFamily(t, func(t *testing.T, a addresses) {
				r := newRig(t, small(), m)
				in := tcp(netip.AddrPortFrom(a.other, 1000), netip.AddrPortFrom(a.pod, 80), syn)
				in.VXLAN = &vxlan{To: wireMAC, From: peerMAC, Source: outer.peer, Dest: outer.self, Sport: 40000, Dport: 8472, VNI: otherIdentity}
				delivered := in.change(func(f *frame) { f.VXLAN, f.From, f.To = nil, gatewayMAC, podMAC })
				changed := in.change(func(f *frame) { v := *in.VXLAN; v.VNI = 3001; f.VXLAN = &v })
				nobody := in.change(func(f *frame) { f.Dest = a.world })
				forged := in.change(func(f *frame) { f.Source = a.pod2 })
				elsewhere := in.change(func(f *frame) { v := *in.VXLAN; v.Dest = outer.world; f.VXLAN = &v })
				script(t, r, []step{
					{at: fromWire, in: in, verdict: redirect, out: delivered},
					{at: fromWire, in: *changed, verdict: redirect, out: delivered},
					{at: fromWire, in: *nobody, verdict: dropped, reason: DropEndpoint},
					{at: fromWire, in: *forged, verdict: dropped, reason: DropSource},
					{at: fromWire, in: *elsewhere, verdict: pass, out: elsewhere},
				})
				var entry Flow
				key := NewFlowKey(netip.AddrPortFrom(a.other, 1000), netip.AddrPortFrom(a.pod, 80), protoTCP, 0)
				must(t, r.Flows.Lookup(key, &entry))
				if entry.Identity != 3001 {
					t.Errorf("identity %d, want that of the last packet's VNI, 3001", entry.Identity)
				}
			})
		})
	}
}

// TestFromOverlay_NoTunnel: a packet on the VXLAN device that came out of no tunnel has no identity. What
// comes with one is compared in package model, where a test can say which.
func TestFromOverlay_NoTunnel(t *testing.T) {
	eachFamily(t, func(t *testing.T, a addresses) {
		r := newRig(t, small(), modes[0])
		in := tcp(netip.AddrPortFrom(a.other, 1000), netip.AddrPortFrom(a.pod, 80), syn)
		script(t, r, []step{{at: fromVXLAN, in: in, verdict: dropped, reason: DropTunnel}})
		var entry Flow
		key := NewFlowKey(netip.AddrPortFrom(a.other, 1000), netip.AddrPortFrom(a.pod, 80), protoTCP, 0)
		if err := r.Flows.Lookup(key, &entry); !errors.Is(err, ebpf.ErrKeyNotExist) {
			t.Errorf("an entry is left: %+v %v", entry, err)
		}
	})
}

func TestFromEndpoint_Refused(t *testing.T) {
	eachFamily(t, func(t *testing.T, a addresses) {
		r := newRig(t, small(), modes[0])
		good := tcp(netip.AddrPortFrom(a.pod, 1000), netip.AddrPortFrom(a.other, 80), syn)
		group := netip.MustParseAddr("224.0.0.1")
		if a.pod.Is6() {
			group = netip.MustParseAddr("ff02::1")
		}
		r.put(r.Ipcache, AddressKey{Address: Address(netip.MustParseAddr("10.9.9.9"))}, IPCacheEntry{Identity: 5000, Node: 63})
		r.put(r.Frontends, FrontendKey{Address: Address(a.vip), Port: Port(80), Protocol: protoTCP}, Frontend{Service: 1})
		r.put(r.Frontends, FrontendKey{Address: Address(a.vip)}, Frontend{})
		steps := []step{
			{at: fromPod, in: *good.change(func(f *frame) { f.Source = a.pod2 }), verdict: dropped, reason: DropSource},
			{at: fromPod2, in: good, verdict: dropped, reason: DropSource},
			{at: fromPod, in: *good.change(func(f *frame) { f.Dest = group }), verdict: dropped, reason: DropMulticast},
			{at: fromPod, in: *good.change(func(f *frame) { f.Dest = a.vip }), verdict: dropped, reason: DropNoBackend},
			{at: fromPod, in: *good.change(func(f *frame) { f.Dest, f.Dport = a.vip, 81 }), verdict: dropped, reason: DropNoService},
			{at: fromPod, in: *good.change(func(f *frame) { f.TTL = 1 }), verdict: redirect, reason: DropTTL},
			{at: fromPod, in: *good.change(func(f *frame) {
				f.Protocol, f.Type, f.Quote = protoICMP, 3, &good
				if a.pod.Is6() {
					f.Protocol, f.Type = protoICMPv6, 1
				}
			}), verdict: dropped, reason: DropUnrelated},
			{at: fromPod, in: *good.change(func(f *frame) { f.Protocol, f.Offset, f.Payload = protoUDP, 1480, make([]byte, 16) }), verdict: dropped, reason: DropFragment},
		}
		if a.pod.Is6() {
			steps = append(steps, step{at: fromPod, in: *good.change(func(f *frame) { f.Dest = netip.MustParseAddr("::ffff:10.2.0.1") }), verdict: dropped, reason: DropMapped})
		}
		script(t, r, steps)
	})
}

func TestService_Translated(t *testing.T) {
	eachFamily(t, func(t *testing.T, a addresses) {
		for _, p := range []struct {
			name     string
			protocol uint8
			noSum    bool
			port     uint16
		}{{"tcp", protoTCP, false, 8080}, {"udp", protoUDP, false, 8080}, {"udp-without-checksum", protoUDP, true, 8080}, {"sctp", protoSCTP, false, 80}} {
			if p.noSum && a.pod.Is6() {
				continue
			}
			t.Run(p.name, func(t *testing.T) {
				r := newRig(t, small(), modes[0])
				r.put(r.Frontends, FrontendKey{Address: Address(a.vip), Port: Port(80), Protocol: p.protocol}, Frontend{Service: 7, Count: 1})
				r.put(r.Backends, BackendKey{Service: 7}, Backend{Address: Address(a.pod2), Port: Port(p.port)})
				out := tcp(netip.AddrPortFrom(a.pod, 1000), netip.AddrPortFrom(a.vip, 80), 0)
				out.Protocol, out.NoSum, out.Payload = p.protocol, p.noSum, []byte("question")
				back := tcp(netip.AddrPortFrom(a.pod2, p.port), netip.AddrPortFrom(a.pod, 1000), 0)
				back.From, back.Protocol, back.NoSum, back.Payload = podMAC2, p.protocol, p.noSum, []byte("answer")
				script(t, r, []step{
					{at: fromPod, in: out, verdict: redirect, out: aged(*out.change(func(f *frame) { f.Dest, f.Dport = a.pod2, p.port }), gatewayMAC, podMAC2)},
					{at: fromPod2, in: back, verdict: redirect, out: aged(*back.change(func(f *frame) { f.Source, f.Sport = a.vip, 80 }), gatewayMAC, podMAC)},
				})
			})
		}
	})
}

func TestService_Itself(t *testing.T) {
	eachFamily(t, func(t *testing.T, a addresses) {
		r := newRig(t, small(), modes[0])
		loopback := small().LoopbackIPv4
		if a.pod.Is6() {
			loopback = small().LoopbackIPv6
		}
		r.put(r.Frontends, FrontendKey{Address: Address(a.vip), Port: Port(80), Protocol: protoTCP}, Frontend{Service: 7, Count: 1})
		r.put(r.Backends, BackendKey{Service: 7}, Backend{Address: Address(a.pod), Port: Port(8080)})
		out := tcp(netip.AddrPortFrom(a.pod, 1000), netip.AddrPortFrom(a.vip, 80), syn)
		back := tcp(netip.AddrPortFrom(a.pod, 8080), netip.AddrPortFrom(loopback, 1000), syn|ack)
		script(t, r, []step{
			{at: fromPod, in: out, verdict: redirect, out: aged(*out.change(func(f *frame) { f.Source, f.Dest, f.Dport = loopback, a.pod, 8080 }), gatewayMAC, podMAC)},
			{at: fromPod, in: back, verdict: redirect, out: aged(*back.change(func(f *frame) { f.Source, f.Sport, f.Dest = a.vip, 80, a.pod }), gatewayMAC, podMAC)},
		})
	})
}

func TestService_PortOfSCTP(t *testing.T) {
	r := newRig(t, small(), modes[0])
	r.put(r.Frontends, FrontendKey{Address: Address(vip4), Port: Port(80), Protocol: protoSCTP}, Frontend{Service: 7, Count: 1})
	r.put(r.Backends, BackendKey{Service: 7}, Backend{Address: Address(ipv4.pod2), Port: Port(8080)})
	out := tcp(netip.AddrPortFrom(ipv4.pod, 1000), netip.AddrPortFrom(vip4, 80), 0)
	out.Protocol = protoSCTP
	script(t, r, []step{{at: fromPod, in: out, verdict: dropped, reason: DropBackendPort}})
}

// TestService_ErrorTranslated: an error of the backend looks to the client as the service's.
func TestService_ErrorTranslated(t *testing.T) {
	eachFamily(t, func(t *testing.T, a addresses) {
		r := newRig(t, small(), modes[0])
		r.put(r.Frontends, FrontendKey{Address: Address(a.vip), Port: Port(80), Protocol: protoUDP}, Frontend{Service: 7, Count: 1})
		r.put(r.Backends, BackendKey{Service: 7}, Backend{Address: Address(a.pod2), Port: Port(8080)})
		out := tcp(netip.AddrPortFrom(a.pod, 1000), netip.AddrPortFrom(a.vip, 80), 0)
		out.Protocol = protoUDP
		// As the backend received it.
		received := out.change(func(f *frame) { f.To, f.From, f.Dest, f.Dport = [6]byte{}, [6]byte{}, a.pod2, 8080 })
		refusal := frame{To: gatewayMAC, From: podMAC2, Source: a.pod2, Dest: a.pod, TTL: 64, Protocol: protoICMP, Type: 3, Code: 3, Quote: received}
		if a.pod.Is6() {
			refusal.Protocol, refusal.Type, refusal.Code = protoICMPv6, 1, 4
		}
		script(t, r, []step{
			{at: fromPod, in: out, verdict: redirect},
			{at: fromPod2, in: refusal, verdict: redirect, out: aged(*refusal.change(func(f *frame) {
				f.Source = a.vip
				f.Quote = received.change(func(q *frame) { q.Dest, q.Dport = a.vip, 80 })
			}), gatewayMAC, podMAC)},
		})
	})
}

func TestFragments_FollowTheFirst(t *testing.T) {
	eachFamily(t, func(t *testing.T, a addresses) {
		r := newRig(t, small(), modes[0])
		r.put(r.Frontends, FrontendKey{Address: Address(a.vip), Port: Port(80), Protocol: protoUDP}, Frontend{Service: 7, Count: 1})
		r.put(r.Backends, BackendKey{Service: 7}, Backend{Address: Address(a.pod2), Port: Port(8080)})
		first := tcp(netip.AddrPortFrom(a.pod, 1000), netip.AddrPortFrom(a.vip, 80), 0)
		first.Protocol, first.ID, first.More, first.Payload = protoUDP, 77, true, make([]byte, 1000)
		later := first.change(func(f *frame) { f.Sport, f.Dport, f.Offset, f.More, f.Payload = 0, 0, 1008, false, make([]byte, 500) })
		script(t, r, []step{
			{at: fromPod, in: *later, verdict: dropped, reason: DropFragment},
			{at: fromPod, in: first, verdict: redirect, out: aged(*first.change(func(f *frame) { f.Dest, f.Dport = a.pod2, 8080 }), gatewayMAC, podMAC2)},
			{at: fromPod, in: *later, verdict: redirect, out: aged(*later.change(func(f *frame) { f.Dest = a.pod2 }), gatewayMAC, podMAC2)},
		})
	})
}

func TestToEndpoint_HostAndReply(t *testing.T) {
	eachFamily(t, func(t *testing.T, a addresses) {
		r := newRig(t, small(), modes[0])
		in := tcp(netip.AddrPortFrom(a.self, 1000), netip.AddrPortFrom(a.pod, 80), syn)
		in.To, in.From = podMAC, gatewayMAC
		wrong := in.change(func(f *frame) { f.Dest = a.pod2 })
		back := tcp(netip.AddrPortFrom(a.pod, 80), netip.AddrPortFrom(a.self, 1000), syn|ack)
		script(t, r, []step{
			{at: toPod, in: in, verdict: pass, out: &in},
			{at: fromPod, in: back, verdict: pass, out: &back},
			{at: toPod, in: *wrong, verdict: dropped, reason: DropEndpoint},
			{at: fromWire, in: in, verdict: dropped, reason: DropSource},
		})
	})
}

func TestFromHost_Tunnel(t *testing.T) {
	eachFamily(t, func(t *testing.T, a addresses) {
		r := newRig(t, small(), modes[1])
		out := tcp(netip.AddrPortFrom(a.self, 1000), netip.AddrPortFrom(a.other, 80), syn)
		program, ifindex := r.hook(fromHost)
		verdict, raw := r.run(program, ifindex, out.encode())
		got := decode(raw)
		if verdict != redirect || got.VXLAN == nil || got.VXLAN.VNI != 6 || got.TTL != 64 || got.Damage != "" {
			t.Errorf("verdict %d, frame %+v; want it tunnelled with the identity remote-node, not aged", verdict, got)
		}
		script(t, r, []step{
			{at: fromHost, in: *out.change(func(f *frame) { f.Dest = a.world }), verdict: dropped, reason: DropNoRoute},
		})
	})
}

func TestEvents_OnePerChange(t *testing.T) {
	r := newRig(t, small(), modes[0])
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

func TestPressure_YoungMovesWithTheReply(t *testing.T) {
	r := newRig(t, small(), modes[0])
	r.put(r.Runtime, uint32(0), Settings{Pressure: 1})
	client, server := netip.AddrPortFrom(ipv4.pod, 1000), netip.AddrPortFrom(ipv4.pod2, 80)
	tables := func() string {
		count := func(m *ebpf.Map) (n int) {
			var k FlowKey
			var v Flow
			for it := m.Iterate(); it.Next(&k, &v); n++ {
			}
			return n
		}
		return fmt.Sprintf("flows %d, young %d", count(r.Flows), count(r.FlowsYoung))
	}
	script(t, r, []step{{at: fromPod, in: tcp(client, server, syn), verdict: redirect}})
	if got, want := tables(), "flows 0, young 2"; got != want {
		t.Errorf("after the SYN: %s, want %s", got, want)
	}
	back := tcp(server, client, syn|ack)
	back.From = podMAC2
	script(t, r, []step{{at: fromPod2, in: back, verdict: redirect}})
	if got, want := tables(), "flows 2, young 0"; got != want {
		t.Errorf("after the reply: %s, want %s", got, want)
	}
}

// TestRaise_KeepsBackend: what is established keeps its backend when services change, also when it
// is decided again; what begins anew does not.
func TestRaise_KeepsBackend(t *testing.T) {
	r := newRig(t, small(), modes[0])
	r.put(r.Frontends, FrontendKey{Address: Address(vip4), Port: Port(80), Protocol: protoTCP}, Frontend{Service: 7, Count: 1})
	r.put(r.Backends, BackendKey{Service: 7}, Backend{Address: Address(ipv4.pod2), Port: Port(8080)})
	out := tcp(netip.AddrPortFrom(ipv4.pod, 1000), netip.AddrPortFrom(vip4, 80), syn)
	data := out.change(func(f *frame) { f.Flags = ack })
	to := func(f frame, dest netip.Addr) *frame {
		return f.change(func(f *frame) { f.Dest, f.Dport = dest, 8080 })
	}
	script(t, r, []step{{at: fromPod, in: out, verdict: redirect}})
	r.put(r.Backends, BackendKey{Service: 7}, Backend{Address: Address(ipv4.world), Port: Port(8080)})
	r.raise()
	script(t, r, []step{
		{at: fromPod, in: *data, verdict: redirect, out: aged(*to(*data, ipv4.pod2), gatewayMAC, podMAC2)},
		{at: fromPod, in: *data.change(func(f *frame) { f.Flags = rst }), verdict: redirect},
		{at: fromPod, in: out, verdict: pass, out: to(out, ipv4.world)},
	})
}
