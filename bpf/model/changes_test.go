// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"
	"testing"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/bpf/model"
)

// TestChanges is the table of docs/datapath.md that says what happens to an established flow when
// something else changes, row by row.
func TestChanges(t *testing.T) {
	w := newWorld(t)
	cfg := small()
	g := newGame(load(t, w, cfg, nil), cfg)
	for _, family := range []uint8{4, 6} {
		for _, c := range changes() {
			t.Run(fmt.Sprintf("%s-ipv%d", c.name, family), func(t *testing.T) { c.run(newScript(t, g), family) })
		}
	}
}

// dial is the first packet from endpoint 1 to an address.
func dial(family uint8, node, pod int, port uint16) frame {
	return frame{src: endpointAddr(1, family), dst: podAddr(node, pod, family), proto: tcp, sport: 1000, dport: port, flags: syn}
}

func (f frame) with(flags byte) frame {
	f.flags = flags
	return f
}

func (s script) device() string {
	return fmt.Sprintf("redirect to device %#x invalid IP", s.g.k.w.eth0)
}

func (s script) neighbour(node int, family uint8) string {
	return fmt.Sprintf("redirect to neighbour %#x %v", s.g.k.w.eth0, nodeAddr(node, family))
}

func changes() []situation {
	return []situation{
		{"identity-of-a-local-endpoint", func(s script, family uint8) {
			f := dial(family, 1, 2, 80)
			s.want(s.endpoint(1, f), peer(2))
			s.rows(func(n *model.Node) { addEndpoint(n, 1, 0x10099) })
			// The reply is decided for the connection: its opener's entry carries the new identity.
			s.want(s.endpoint(2, f.answered(syn|ack)), peer(1))
			if e := s.entry(1, f); e.Identity != 0x10099 || e.State&bpf.FlowReply != 0 {
				s.Fatalf("the opener's entry is %s", describeFlow(f.key(1), e))
			}
			s.want(s.endpoint(1, f.with(ack)), peer(2))
		}},
		{"ipcache-of-a-remote-endpoint", func(s script, family uint8) {
			f := dial(family, 2, 1, 80)
			s.want(s.endpoint(1, f), s.neighbour(2, family))
			s.want(s.endpoint(1, f.with(ack)), s.device())
			// The address moves to a node behind a tunnel.
			s.rows(func(n *model.Node) {
				n.IPCache[f.dst] = bpf.IPCacheEntry{Identity: remoteIdentity(2), Node: 3}
			})
			s.want(s.endpoint(1, f.with(ack)), s.neighbour(3, 4))
			if e := s.entry(1, f); e.State&bpf.FlowTunnel == 0 || e.Packets != 3 {
				s.Fatalf("the entry is %s", describeFlow(f.key(1), e))
			}
			// And becomes unknown: the connection is the world's now.
			s.rows(func(n *model.Node) { delete(n.IPCache, f.dst) })
			s.want(s.endpoint(1, f.with(ack)), "pass")
		}},
		{"node-refused-and-allowed-again", func(s script, family uint8) {
			f := dial(family, 3, 1, 80)
			s.want(s.endpoint(1, f), s.neighbour(3, 4))
			s.rows(func(n *model.Node) { n.Nodes[3] = bpf.Node{Flags: bpf.NodeTunnel} })
			s.want(s.endpoint(1, f.with(ack)), "drop node")
			if s.count("flows") != 2 {
				s.Fatal("a refused packet changed the table")
			}
			s.rows(func(n *model.Node) { setNode(n, 3, bpf.NodeTunnel, 0) })
			s.want(s.endpoint(1, f.with(ack)), s.device())
			if e := s.entry(1, f); e.Packets != 2 {
				s.Fatalf("the entry is a new one: %s", describeFlow(f.key(1), e))
			}
		}},
		{"remote-identity-in-tunnel-mode", func(s script, family uint8) {
			f := dial(family, 3, 1, 80)
			s.endpoint(1, f)
			s.want(s.network(f.answered(syn|ack), remoteIdentity(3)), peer(1))
			// No row changed and nothing was raised: the tunnel says who it is.
			s.want(s.network(f.answered(ack), 0x20077), peer(1))
			if e := s.entry(0, f.answered(0)); e.Identity != 0x20077 {
				s.Fatalf("the entry is %s", describeFlow(f.answered(0).key(0), e))
			}
		}},
		{"backend-removed", func(s script, family uint8) {
			f := dial(family, 7, 3, 80) // service 4, one backend: endpoint 1 itself
			f.src = endpointAddr(2, family)
			s.want(s.endpoint(2, f), peer(1))
			back := f.answered(syn | ack)
			back.src, back.sport = endpointAddr(1, family), 8080
			s.want(s.endpoint(1, back), peer(2))
			gone := services()[3]
			gone.backends = []backend{{1, 3, 9090}}
			s.rows(gone.set)
			// The translation is pinned.
			s.want(s.endpoint(2, f.with(ack)), peer(1))
			// Marked reset by the agent, the next SYN on it chooses anew, in place.
			for _, key := range []bpf.FlowKey{f.key(2), back.key(1)} {
				s.agent(key, func(e *bpf.Flow) { e.State |= bpf.FlowReset })
			}
			s.want(s.endpoint(2, f.with(ack)), peer(1))
			s.want(s.endpoint(2, f), peer(3))
		}},
		{"local-endpoint-deleted", func(s script, family uint8) {
			f := dial(family, 1, 2, 80)
			s.want(s.endpoint(1, f), peer(2))
			s.want(s.endpoint(2, f.answered(syn|ack)), peer(1))
			// Detached first, so that it sends no more; then its entries, raise, row.
			s.drop(f.key(1), f.answered(0).key(2))
			s.rows(func(n *model.Node) {
				delete(n.Endpoints, 2)
				delete(n.IPCache, endpointAddr(2, family))
			})
			// What is its address then? With no row it is the world's, by the host's routes.
			s.want(s.endpoint(1, f.with(ack)), "pass")
			// Another endpoint gets the address, and nothing of the old one.
			s.drop(f.key(1), f.answered(0).key(0))
			s.rows(func(n *model.Node) {
				n.Endpoints[5] = bpf.Endpoint{
					Identity: 0x10055, Mac: endpointMAC(5), Mtu: 1500,
					Ipv4: bpf.Address(endpointAddr(2, 4)), Ipv6: bpf.Address(endpointAddr(2, 6)),
				}
				n.IPCache[endpointAddr(2, family)] = bpf.IPCacheEntry{Identity: 0x10055, Endpoint: 5}
			})
			s.want(s.endpoint(1, f), peer(5))
			if e := s.entry(5, f.answered(0)); e.Identity != 0x10055 || e.Packets != 0 {
				s.Fatalf("the entry is %s", describeFlow(f.answered(0).key(5), e))
			}
			s.want(s.endpoint(2, f.answered(ack)), "drop endpoint")
		}},
		{"neighbour-or-route", func(s script, family uint8) {
			f := dial(family, 2, 1, 80)
			s.want(s.endpoint(1, f), s.neighbour(2, family))
			s.want(s.endpoint(1, f.with(ack)), s.device())
			s.step(pass(s.g.n.Config.TicksPerSecond))
			s.want(s.endpoint(1, f.with(ack)), s.neighbour(2, family))
			s.want(s.endpoint(1, f.with(ack)), s.device())
		}},
		{"syn-on-a-closing-entry", func(s script, family uint8) {
			f := dial(family, 7, 4, 443) // service 7
			s.want(s.endpoint(1, f), s.neighbour(3, 4))
			s.want(s.endpoint(1, f.with(rst)), s.device())
			moved := services()[6]
			moved.backends = []backend{{1, 2, 444}}
			s.rows(moved.set)
			s.want(s.endpoint(1, f), peer(2))
			e := s.entry(1, f)
			if e.Packets != 1 || e.State&(bpf.FlowReset|bpf.FlowClosed) != 0 || bpf.Addr(e.Address) != endpointAddr(2, family) {
				s.Fatalf("the entry is %s", describeFlow(f.key(1), e))
			}
		}},
		{"no-entry-and-no-syn", func(s script, family uint8) {
			f := dial(family, 7, 1, 80) // service 1 with five backends
			before := s.endpoint(1, f)
			e := s.entry(1, f)
			s.g.begin(s.T)
			after := s.endpoint(1, f.with(ack))
			s.want(after, before)
			if again := s.entry(1, f); again.Address != e.Address || again.Port != e.Port {
				s.Fatalf("another backend: %s", describeFlow(f.key(1), again))
			}
		}},
		{"forgotten-connection-heals", func(s script, family uint8) {
			f := dial(family, 7, 3, 80) // service 5: UDP, the backend is endpoint 1
			f.proto, f.src = udp, endpointAddr(2, family)
			s.want(s.endpoint(2, f), peer(1))
			back := f.answered(0)
			back.src, back.sport = endpointAddr(1, family), 8080
			s.want(s.endpoint(1, back), peer(2))
			s.drop(f.key(2), back.key(1))
			// The answer comes first, as a stranger; then the client, whose connection it really is.
			s.endpoint(1, back)
			s.want(s.endpoint(2, f), peer(1))
			if e := s.entry(1, back); e.State&bpf.FlowSource == 0 {
				s.Fatalf("answers are not translated: %s", describeFlow(back.key(1), e))
			}
		}},
		{"connections-of-one-port-to-one-backend", func(s script, family uint8) {
			// A client talks to a backend directly, and then through the service from the same port.
			two := services()[3]
			two.backends = []backend{{1, 1, 8080}, {1, 3, 8080}}
			s.rows(two.set)
			for port := uint16(1000); port < 1010; port++ {
				direct, f := dial(family, 1, 1, 8080), dial(family, 7, 3, 80)
				direct.src, direct.sport, f.src, f.sport = endpointAddr(2, family), port, endpointAddr(2, family), port
				s.want(s.endpoint(2, direct), peer(1))
				s.want(s.endpoint(1, direct.answered(syn|ack)), peer(2))
				s.want(s.endpoint(2, f), peer(3))
				back := f.answered(syn | ack)
				back.src, back.sport = endpointAddr(3, family), 8080
				s.want(s.endpoint(3, back), peer(2))
				if e := s.entry(3, back); e.State&bpf.FlowSource == 0 {
					s.Fatalf("answers are not translated: %s", describeFlow(back.key(3), e))
				}
			}
		}},
		{"connections-of-one-port-to-the-only-backend", func(s script, family uint8) {
			direct, f := dial(family, 1, 1, 8080), dial(family, 7, 3, 80)
			direct.src, f.src = endpointAddr(2, family), endpointAddr(2, family)
			s.want(s.endpoint(2, direct), peer(1))
			s.want(s.endpoint(1, direct.answered(syn|ack)), peer(2))
			s.want(s.endpoint(2, f), "drop taken")
			s.want(s.endpoint(2, f), "drop taken")
			if s.count("flows") != 2 {
				s.Fatal("a refused packet left an entry")
			}
			// The client tries again, and meanwhile the other connection ends.
			s.want(s.endpoint(2, direct.with(rst)), peer(1))
			s.want(s.endpoint(2, f), peer(1))
			back := f.answered(syn | ack)
			back.src, back.sport = endpointAddr(1, family), 8080
			s.want(s.endpoint(1, back), peer(2))
			// Datagrams go there all the same: not all want an answer.
			direct.proto, direct.sport, f.proto, f.sport = udp, 2000, udp, 2000
			s.want(s.endpoint(2, direct), peer(1))
			s.want(s.endpoint(1, direct.answered(0)), peer(2))
			s.want(s.endpoint(2, f), peer(1))
		}},
		{"answer-through-the-stack-after-a-raise", func(s script, family uint8) {
			// The host's stack has turned somebody's packet into one from endpoint 1 to endpoint 4.
			f := dial(family, 1, 4, 80)
			s.want(s.packet(model.ToEndpoint, 4, f, 0), "pass")
			s.want(s.endpoint(4, f.answered(syn|ack)), "pass")
			s.rows(func(*model.Node) {})
			s.want(s.endpoint(4, f.answered(ack)), "pass")
		}},
		{"agent-dead", func(s script, family uint8) {
			f := dial(family, 2, 1, 80)
			s.want(s.endpoint(1, f), s.neighbour(2, family))
			for range 5 { // nothing is stale; routes heal by themselves
				s.step(pass(s.g.n.Config.TicksPerSecond * 100))
				s.want(s.endpoint(1, f.with(ack)), s.neighbour(2, family))
				s.want(s.network(f.answered(ack), 0), peer(1))
			}
		}},
	}
}

// agent changes an entry in both, as the agent does.
func (s script) agent(key bpf.FlowKey, change func(*bpf.Flow)) {
	s.Helper()
	change(s.g.n.Flows[key])
	if err := s.g.k.c.Maps["flows"].Put(key, *s.g.n.Flows[key]); err != nil {
		s.Fatal(err)
	}
}

// drop deletes entries in both.
func (s script) drop(keys ...bpf.FlowKey) {
	s.Helper()
	for _, key := range keys {
		delete(s.g.n.Flows, key)
		if err := s.g.k.c.Maps["flows"].Delete(key); err != nil {
			s.Fatalf("%s: %v", describeKey(key), err)
		}
	}
}
