// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/weft-net/weft/bpf"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small is a configuration with maps of the size of the tests.
func small() bpf.Config {
	cfg := bpf.DefaultConfig()
	cfg.EndpointSlots, cfg.MaxNodes = 8, 8
	cfg.MaxFlows, cfg.MaxYoungFlows, cfg.MaxFragments = 1024, 4096, 4096
	cfg.MaxIPCache, cfg.MaxPrefixes = 256, 64
	cfg.MaxFrontends, cfg.MaxBackends = 64, 256
	cfg.EventBytes = 1 << 20
	cfg.TicksPerSecond = 250
	return cfg
}

// begin puts both to the beginning of a sequence.
func (g *game) begin(t testing.TB) {
	t.Helper()
	if err := g.reset(g.n.Config); err != nil {
		t.Fatal(err)
	}
	furnish(g.n)
	g.k.tick(g.n, 0xffffff00) // the clock wraps in the middle
	if err := g.k.sync(g.n); err != nil {
		t.Fatal(err)
	}
}

// sequence plays random steps; a failing sequence is made shorter and printed.
func (g *game) sequence(t testing.TB, seed uint64, length int) {
	t.Helper()
	g.begin(t)
	d := dice{rand.New(rand.NewPCG(seed, 0)), g, new([]first)}
	var steps []step
	for range length {
		s := d.step()
		steps = append(steps, s)
		diff, err := g.do(s)
		if err != nil {
			t.Fatalf("seed %d: step %d: %s: %v", seed, len(steps), s.text, err)
		}
		if diff != "" {
			steps, diff = g.shrink(t, steps, diff)
			var b strings.Builder
			for i, s := range steps {
				fmt.Fprintf(&b, "%3d %s\n", i+1, s.text)
			}
			t.Fatalf("seed %d: model and programs disagree after\n%s%s", seed, b.String(), diff)
		}
	}
}

// shrink leaves out steps while the last one still fails.
func (g *game) shrink(t testing.TB, steps []step, diff string) ([]step, string) {
	t.Helper()
	for size := len(steps) / 2; size > 0; size /= 2 {
		for i := len(steps) - 1 - size; i >= 0; i -= size {
			shorter := append(append([]step(nil), steps[:i]...), steps[i+size:]...)
			if d := g.replay(t, shorter); d != "" {
				steps, diff = shorter, d
			}
		}
	}
	return steps, diff
}

// replay plays a sequence again: what differs after its last step.
func (g *game) replay(t testing.TB, steps []step) string {
	t.Helper()
	g.begin(t)
	for i, s := range steps {
		diff, err := g.do(s)
		if err != nil {
			t.Fatal(err)
		}
		if diff != "" {
			if i < len(steps)-1 {
				return ""
			}
			return diff
		}
	}
	return ""
}

// TestModel_Random plays sequences of random packets and changes. FuzzModel goes on where it ends.
func TestModel_Random(t *testing.T) {
	w := newWorld(t)
	cfg := small()
	g := newGame(load(t, w, cfg, nil), cfg)
	for seed := range uint64(40) {
		g.sequence(t, seed, 120)
	}
}
