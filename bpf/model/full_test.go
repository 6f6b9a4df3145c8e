// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/bpf/model"
)

// flood sends SYNs of as many connections from endpoint 3 and returns how many were dropped.
func (g *game) flood(n int) (dropped int, err error) {
	err = g.k.w.ns.Do(func() error {
		for i := range n {
			f := dial(4, 1, 4, 80)
			f.src, f.sport = endpointAddr(3, 4), uint16(i)
			f.dst = netip.AddrFrom4([4]byte{192, 0, 2, byte(i >> 16)})
			f.destMAC, f.sourceMAC = [6]byte(g.n.Config.GatewayMAC), endpointMAC(3)
			code, err := g.k.c.Programs["from_endpoint"].Run(&ebpf.RunOptions{
				Data: f.bytes(), Context: skb{Ifindex: base + 3, IngressIfindex: base + 3},
			})
			if err != nil {
				return err
			}
			if int32(code) == verdictDrop {
				dropped++
			}
		}
		return nil
	})
	return dropped, err
}

// TestYoung_FloodUnderPressure: under pressure connections begin where old ones give way, and an
// established connection is where none does.
func TestYoung_FloodUnderPressure(t *testing.T) {
	w := newWorld(t)
	cfg := small()
	cfg.MaxFlows, cfg.MaxYoungFlows = 64, 512
	cfg.ReportEvents = false
	s := newScript(t, newGame(load(t, w, cfg, nil), cfg))
	s.step(changed("pressure", func(n *model.Node) { n.Pressure = true }))

	f := dial(4, 1, 2, 80)
	s.want(s.endpoint(1, f), peer(2))
	if young := s.count("flows_young"); young != 2 || s.count("flows") != 0 {
		t.Fatalf("%d young entries of a connection that began under pressure", young)
	}
	s.want(s.endpoint(2, f.answered(syn|ack)), peer(1))
	if flows := s.count("flows"); flows != 2 || s.count("flows_young") != 0 {
		t.Fatalf("%d entries of a connection that was answered", flows)
	}
	dropped, err := s.g.flood(5000)
	if err != nil || dropped != 0 {
		t.Fatalf("%d packets of the flood were dropped, %v", dropped, err)
	}
	if flows := s.count("flows"); flows != 2 {
		t.Errorf("the flood left %d entries", flows-2)
	}
	if e := s.entry(1, f); e.Packets != 1 || e.State&bpf.FlowReplied == 0 {
		t.Errorf("after the flood the entry is %s", describeFlow(f.key(1), e))
	}
}

// TestFull_NothingStops: with flows full, new connections begin among the young and work.
func TestFull_NothingStops(t *testing.T) {
	w := newWorld(t)
	cfg := small()
	cfg.MaxFlows, cfg.MaxYoungFlows = 16, 4096
	cfg.ReportEvents = false
	s := newScript(t, newGame(load(t, w, cfg, nil), cfg))
	first := dial(4, 1, 2, 80)
	s.want(s.endpoint(1, first), peer(2))
	for i := range 20 {
		f := dial(6, 3, 1, 80)
		f.sport = uint16(2000 + i)
		s.endpoint(1, f)
		s.want(s.network(f.answered(syn|ack), remoteIdentity(3)), peer(1))
		s.endpoint(1, f.with(ack))
	}
	if flows, young := s.count("flows"), s.count("flows_young"); flows != 16 || young != 42-16 {
		t.Errorf("%d entries, %d young ones", flows, young)
	}
	s.want(s.endpoint(2, first.answered(syn|ack)), peer(1))
}

// TestModel_RandomFull is the random test with a table that is always full: halves of connections
// are in different tables.
func TestModel_RandomFull(t *testing.T) {
	w := newWorld(t)
	cfg := small()
	cfg.MaxFlows = 9
	g := newGame(load(t, w, cfg, nil), cfg)
	for seed := range uint64(15) {
		g.sequence(t, 1000+seed, 120)
	}
}

// FuzzModel is the random test without an end.
func FuzzModel(f *testing.F) {
	w := newWorld(f)
	cfg := small()
	full := small()
	full.MaxFlows = 9
	games := []*game{newGame(load(f, w, cfg, nil), cfg), newGame(load(f, w, full, nil), full)}
	f.Add(uint64(1), byte(50), false)
	f.Add(uint64(2), byte(50), true)
	f.Fuzz(func(t *testing.T, seed uint64, length byte, full bool) {
		g := games[0]
		if full {
			g = games[1]
		}
		g.sequence(t, seed, int(length)*2)
	})
}
