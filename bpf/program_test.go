// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestFromEndpoint_Native(t *testing.T) {
	eachFamily(t, func(t *testing.T, a addresses) {
		r := newRig(t, small(), modes()[0])
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
	for _, m := range modes()[1:] {
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
	for _, m := range modes()[1:] {
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
		r := newRig(t, small(), modes()[0])
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
		r := newRig(t, small(), modes()[0])
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

func TestToEndpoint_HostAndReply(t *testing.T) {
	eachFamily(t, func(t *testing.T, a addresses) {
		r := newRig(t, small(), modes()[0])
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
		r := newRig(t, small(), modes()[1])
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

func TestPressure_YoungMovesWithTheReply(t *testing.T) {
	r := newRig(t, small(), modes()[0])
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
