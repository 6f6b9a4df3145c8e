// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"
	"testing"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/bpf/model"
)

// script is a test that says what happens step by step, with model and programs compared at each.
type script struct {
	*testing.T
	g *game
}

// situation is a script with a name, for packets of either family.
type situation struct {
	name string
	run  func(s script, family uint8)
}

func newScript(t *testing.T, g *game) script {
	g.begin(t)
	return script{t, g}
}

func (s script) step(st step) {
	s.Helper()
	diff, err := s.g.do(st)
	if err != nil {
		s.Fatal(err)
	}
	if diff != "" {
		s.Fatalf("%s: model and programs disagree\n%s", st.text, diff)
	}
}

// rows changes rows and raises the generation after that.
func (s script) rows(f func(n *model.Node)) {
	s.Helper()
	s.step(changed("rows", func(n *model.Node) { f(n); n.Generation++ }))
}

// quiet changes rows and does not raise the generation.
func (s script) quiet(f func(n *model.Node)) {
	s.Helper()
	s.step(changed("rows", f))
}

// endpoint lets an endpoint send a packet; the answer is what became of it.
func (s script) endpoint(slot int, f frame) string {
	s.Helper()
	return s.packet(model.FromEndpoint, slot, f, 0)
}

// network lets a packet arrive on the native device, in a tunnel if there is a VNI.
func (s script) network(f frame, vni uint32) string {
	s.Helper()
	return s.packet(model.FromNetdev, 0, f, vni)
}

func (s script) packet(program model.Program, slot int, f frame, vni uint32) string {
	s.Helper()
	in := model.Input{Program: program, Ifindex: s.g.k.w.eth0, VNI: vni}
	f.destMAC = s.g.k.w.eth0MAC
	if slot != 0 {
		in.Ifindex = base + uint32(slot)
		f.destMAC, f.sourceMAC = [6]byte(s.g.n.Config.GatewayMAC), endpointMAC(slot)
	}
	in.Data = f.bytes()
	if program == model.FromNetdev && vni != 0 {
		in.Data = tunnelled(in.Data, nodeAddr(3, 4), nodeAddr(1, 4), vni, f.destMAC)
	}
	var out model.Output
	s.step(step{text: f.text(program), packet: &in})
	out = s.g.last
	what := describe(out)
	if out.Reason != bpf.DropNone {
		what = "drop " + out.Reason.String()
	}
	return what
}

// want fails unless a packet went where it should.
func (s script) want(have, want string) {
	s.Helper()
	if have != want {
		s.Fatalf("the packet: %s, want %s", have, want)
	}
}

// entry is a packet's entry in the kernel.
func (s script) entry(slot int, f frame) bpf.Flow {
	s.Helper()
	key := f.key(slot)
	for _, table := range []string{"flows", "flows_young"} {
		flows, err := s.g.k.flows(table)
		if err != nil {
			s.Fatal(err)
		}
		if flow, ok := flows[key]; ok {
			return flow
		}
	}
	s.Fatalf("no entry for %s", describeKey(key))
	return bpf.Flow{}
}

// count is the number of entries in a table.
func (s script) count(table string) int {
	s.Helper()
	flows, err := s.g.k.flows(table)
	if err != nil {
		s.Fatal(err)
	}
	return len(flows)
}

// key is the key of a packet's entry.
func (f frame) key(slot int) bpf.FlowKey {
	key := bpf.FlowKey{
		Source: bpf.Address(f.src), Destination: bpf.Address(f.dst), Protocol: f.proto, Family: 6, From: uint16(slot),
		SourcePort: bpf.Port(f.sport), DestinationPort: bpf.Port(f.dport),
	}
	if f.is4() {
		key.Family = 4
	}
	return key
}

// answered is a frame that goes back.
func (f frame) answered(flags byte) frame {
	f.src, f.dst, f.sport, f.dport, f.flags = f.dst, f.src, f.dport, f.sport, flags
	return f
}

func peer(slot int) string {
	return fmt.Sprintf("redirect to peer %#x invalid IP", base+slot)
}
