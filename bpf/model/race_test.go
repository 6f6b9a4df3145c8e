// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/bpf/model"
)

// armed raises the generation from 1 to 2 before the helper call of a chosen number.
func armed(n int) asm.Instructions {
	end := fmt.Sprintf("armed.%d", n)
	return asm.Instructions{
		value(asm.R0, refereeMap),
		asm.LoadMem(asm.R0, asm.R0, offArmed, asm.Word),
		asm.JNE.Imm(asm.R0, int32(n)+1, end),
		value(asm.R0, "generation"),
		asm.StoreImm(asm.R0, 0, 2, asm.Word),
		value(asm.R0, refereeMap),
		asm.StoreImm(asm.R0, offFired, 1, asm.Word),
		asm.Mov.Imm(asm.R0, 0).WithSymbol(end),
	}
}

// TestRaise_BetweenReadAndCreate raises the generation at every point of deciding at which anybody
// could: before each helper call. The entries then carry the generation that was read, so that the
// next packet decides again.
func TestRaise_BetweenReadAndCreate(t *testing.T) {
	w := newWorld(t)
	cfg := small()
	sites := 0
	g := newGame(load(t, w, cfg, func(n int) asm.Instructions {
		sites = max(sites, n+1)
		return armed(n)
	}), cfg)
	fired, stale := 0, 0
	for _, f := range []frame{dial(4, 7, 1, 80), dial(6, 3, 1, 80)} {
		s := newScript(t, g)
		for site := range sites {
			if err := errors.Join(write(g.k.c.Maps["flows"], map[bpf.FlowKey]bpf.Flow{}),
				g.k.c.Maps["generation"].Put(uint32(0), uint32(1))); err != nil {
				t.Fatal(err)
			}
			g.k.referee.Armed, g.k.referee.Fired = uint32(site)+1, 0
			f.destMAC, f.sourceMAC = [6]byte(cfg.GatewayMAC), endpointMAC(1)
			in := model.Input{Program: model.FromEndpoint, Ifindex: base + 1, Data: f.bytes()}
			saw, err := g.look(in)
			if err != nil {
				t.Fatal(err)
			}
			g.k.referee.Armed = 0
			if saw.referee.Fired == 0 {
				continue
			}
			fired++
			if len(saw.flows) != 2 {
				t.Fatalf("site %d: %d entries", site, len(saw.flows))
			}
			generation := saw.flows[f.key(1)].Generation
			for key, flow := range saw.flows {
				if flow.Generation != generation {
					t.Errorf("site %d: the two entries are of different generations: %s", site, describeFlow(key, flow))
				}
			}
			if generation == 1 {
				stale++
			}
			// Whatever it was, the next packet leaves both entries of this generation.
			if _, err := g.look(in); err != nil {
				t.Fatal(err)
			}
			if e := s.entry(1, f); e.Generation != 2 {
				t.Errorf("site %d: after another packet still %s", site, describeFlow(f.key(1), e))
			}
		}
	}
	if stale < 10 || fired == stale {
		t.Errorf("raised %d times, %d of them between read and create", fired, stale)
	}
}

// TestRaise_StaleNeverWrong changes a row and raises the generation again and again while another
// processor decides: an entry of generation n holds nothing older than what was written before n
// was raised.
func TestRaise_StaleNeverWrong(t *testing.T) {
	w := newWorld(t)
	cfg := small()
	g := newGame(load(t, w, cfg, nil), cfg)
	g.begin(t)
	const (
		first = 0x1000
		least = 20_000 // packets
		raced = 100    // generations that were met
	)
	maps := g.k.c.Maps
	raised := func(n uint32) error {
		row := g.n.Endpoints[1]
		row.Identity = n
		if err := maps["endpoints"].Put(uint32(1), row); err != nil {
			return err
		}
		return maps["generation"].Put(uint32(0), n)
	}
	if err := raised(first); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var agent sync.WaitGroup
	agent.Go(func() {
		for n := uint32(first + 1); !stop.Load(); n++ {
			if err := raised(n); err != nil {
				t.Error(err)
				return
			}
		}
	})
	f := dial(4, 7, 1, 80)
	f.destMAC, f.sourceMAC = [6]byte(cfg.GatewayMAC), endpointMAC(1)
	opts := &ebpf.RunOptions{Data: f.bytes(), Context: skb{Ifindex: base + 1, IngressIfindex: base + 1}}
	generations := map[uint32]bool{}
	err := w.ns.Do(func() error {
		// On a machine that is busy with something else the two seldom run side by side.
		for i := 0; i < least || len(generations) < raced && i < 100*least; i++ {
			if _, err := g.k.c.Programs["from_endpoint"].Run(opts); err != nil {
				return err
			}
			var e bpf.Flow
			if err := maps["flows"].Lookup(f.key(1), &e); err != nil {
				return err
			}
			generations[e.Generation] = true
			if e.Identity < e.Generation {
				return fmt.Errorf("an entry of generation %#x holds identity %#x", e.Generation, e.Identity)
			}
		}
		return nil
	})
	stop.Store(true)
	agent.Wait()
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d generations were seen", len(generations))
	if len(generations) < raced {
		t.Errorf("only %d generations were seen: nothing was raced", len(generations))
	}
}
