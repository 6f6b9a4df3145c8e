// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/bpf/model"
)

// overlay lets a packet come out of the VXLAN device.
func (s script) overlay(f frame, vni uint32) string {
	s.Helper()
	return s.packet(model.FromOverlay, 0, f, vni)
}

// TestOverlay is what the stack took out of a tunnel: the same as what from_netdev takes out itself.
func TestOverlay(t *testing.T) {
	w := newWorld(t)
	cfg := small()
	g := newGame(load(t, w, cfg, nil), cfg)
	for _, family := range []uint8{4, 6} {
		for _, c := range overlays() {
			t.Run(fmt.Sprintf("%s-ipv%d", c.name, family), func(t *testing.T) { c.run(newScript(t, g), family) })
		}
	}
}

// call is the first packet of an endpoint of the tunnel peer to endpoint 1.
func call(family uint8) frame {
	return frame{src: podAddr(3, 1, family), dst: endpointAddr(1, family), proto: tcp, sport: 1000, dport: 80, flags: syn}
}

func overlays() []situation {
	return []situation{
		{"identity-is-the-vni", func(s script, family uint8) {
			f := call(family)
			for _, tt := range []struct{ vni, identity uint32 }{
				{remoteIdentity(3), remoteIdentity(3)},
				{0x20099, 0x20099}, // noticed at once, without a raise
				{1, 6},             // who calls itself host is another node's host
				{0, 2},             // nobody is the world
			} {
				s.want(s.overlay(f, tt.vni), peer(1))
				if e := s.entry(0, f); e.Identity != tt.identity {
					s.Fatalf("VNI %d: identity %d, want %d", tt.vni, e.Identity, tt.identity)
				}
			}
		}},
		{"one-connection-both-ways-in", func(s script, family uint8) {
			f := call(family)
			s.want(s.network(f, remoteIdentity(3)), peer(1))
			s.want(s.endpoint(1, f.answered(syn|ack)), s.neighbour(3, 4))
			entries := s.count("flows")
			s.want(s.overlay(f.with(ack), remoteIdentity(3)), peer(1))
			s.want(s.network(f.with(ack), remoteIdentity(3)), peer(1))
			s.want(s.overlay(f.with(fin|ack), remoteIdentity(3)), peer(1))
			if n := s.count("flows"); n != entries {
				s.Fatalf("%d entries, want %d", n, entries)
			}
			if e := s.entry(0, f); e.State&bpf.FlowFin == 0 || e.Packets != 4 {
				s.Fatalf("entry %s: want FIN and 4 packets", describeFlow(f.key(0), e))
			}
		}},
		{"stale-after-a-raise", func(s script, family uint8) {
			f := call(family)
			s.want(s.overlay(f, remoteIdentity(3)), peer(1))
			s.rows(func(n *model.Node) { delete(n.Endpoints, 1) })
			s.want(s.overlay(f.with(ack), remoteIdentity(3)), "drop "+bpf.DropEndpoint.String())
		}},
		{"nobody-speaks-for-this-node", func(s script, family uint8) {
			for _, from := range []netip.Addr{endpointAddr(2, family), nodeAddr(1, family)} {
				f := call(family)
				f.src = from
				s.want(s.overlay(f, remoteIdentity(3)), "drop "+bpf.DropSource.String())
			}
		}},
		{"for-nobody-here", func(s script, family uint8) {
			for _, to := range []netip.Addr{podAddr(2, 1, family), podAddr(8, 1, family), podAddr(7, 1, family)} {
				f := call(family)
				f.dst = to
				s.want(s.overlay(f, remoteIdentity(3)), "drop "+bpf.DropEndpoint.String())
			}
			if n := s.count("flows"); n != 0 {
				s.Fatalf("%d entries are left", n)
			}
		}},
		{"for-the-host", func(s script, family uint8) {
			f := call(family)
			f.dst = nodeAddr(1, family)
			s.want(s.overlay(f, remoteIdentity(3)), "pass")
		}},
	}
}
