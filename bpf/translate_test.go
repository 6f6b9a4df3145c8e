// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
)

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
				r := newRig(t, small(), modes()[0])
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

// TestService_PortInUse: a client that talks to a backend directly reaches the service from the same
// port through another backend, and through the only one not at all while the other connection lives.
func TestService_PortInUse(t *testing.T) {
	eachFamily(t, func(t *testing.T, a addresses) {
		r := newRig(t, small(), modes()[0])
		vip := netip.AddrPortFrom(a.vip, 80)
		r.put(r.Frontends, FrontendKey{Address: Address(a.vip), Port: Port(80), Protocol: protoTCP}, Frontend{Service: 7, Count: 1})
		r.put(r.Backends, BackendKey{Service: 7}, Backend{Address: Address(a.pod2), Port: Port(8080)})
		client, server := netip.AddrPortFrom(a.pod, 1000), netip.AddrPortFrom(a.pod2, 8080)
		answer := tcp(server, client, syn|ack)
		answer.From = podMAC2
		asked := tcp(client, vip, syn)
		to := func(dest netip.Addr) *frame {
			return asked.change(func(f *frame) { f.Dest, f.Dport = dest, 8080 })
		}
		script(t, r, []step{
			{at: fromPod, in: tcp(client, server, syn), verdict: redirect},
			{at: fromPod2, in: answer, verdict: redirect, out: aged(answer, gatewayMAC, podMAC)},
			{at: fromPod, in: asked, verdict: dropped, reason: DropTaken},
		})
		var entry Flow
		if err := r.Flows.Lookup(NewFlowKey(client, vip, protoTCP, 1), &entry); !errors.Is(err, ebpf.ErrKeyNotExist) {
			t.Errorf("an entry is left: %+v %v", entry, err)
		}
		// Whichever of the two the hash gives, the SYN goes to the other one.
		r.put(r.Backends, BackendKey{Service: 7, Slot: 1}, Backend{Address: Address(a.world), Port: Port(8080)})
		r.put(r.Frontends, FrontendKey{Address: Address(a.vip), Port: Port(80), Protocol: protoTCP}, Frontend{Service: 7, Count: 2})
		script(t, r, []step{
			{at: fromPod, in: asked, verdict: pass, out: to(a.world)},
			// The other connection is what it was.
			{at: fromPod2, in: answer, verdict: redirect, out: aged(answer, gatewayMAC, podMAC)},
		})
	})
}

func TestService_Itself(t *testing.T) {
	eachFamily(t, func(t *testing.T, a addresses) {
		r := newRig(t, small(), modes()[0])
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
	r := newRig(t, small(), modes()[0])
	r.put(r.Frontends, FrontendKey{Address: Address(vip4), Port: Port(80), Protocol: protoSCTP}, Frontend{Service: 7, Count: 1})
	r.put(r.Backends, BackendKey{Service: 7}, Backend{Address: Address(ipv4.pod2), Port: Port(8080)})
	out := tcp(netip.AddrPortFrom(ipv4.pod, 1000), netip.AddrPortFrom(vip4, 80), 0)
	out.Protocol = protoSCTP
	script(t, r, []step{{at: fromPod, in: out, verdict: dropped, reason: DropBackendPort}})
}

// TestService_ErrorTranslated: an error of the backend looks to the client as the service's.
func TestService_ErrorTranslated(t *testing.T) {
	eachFamily(t, func(t *testing.T, a addresses) {
		r := newRig(t, small(), modes()[0])
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
		r := newRig(t, small(), modes()[0])
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

// TestRaise_KeepsBackend: what is established keeps its backend when services change, also when it
// is decided again; what begins anew does not.
func TestRaise_KeepsBackend(t *testing.T) {
	r := newRig(t, small(), modes()[0])
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
