// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
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
