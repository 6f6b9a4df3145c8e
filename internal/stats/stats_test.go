// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package stats_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/weft-net/weft/internal/stats"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTopRatio_IgnoresDisturbedSlots(t *testing.T) {
	to := []float64{100, 100, 100, 100, 100, 1, 2, 3}
	of := []float64{5, 90, 90, 10, 90, 90, 90, 20}
	got, err := stats.TopRatio(of, to)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(0.9, got); d != "" {
		t.Errorf("ratio (-want +got):\n%s", d)
	}
}

// TestTopRatio_Noise is the situation that the estimator is made for: half of the slots lose up to
// 70 % to other load. The answer must stay within 2 %.
func TestTopRatio_Noise(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	slot := func(rate float64) float64 {
		rate *= 1 + 0.01*rnd.NormFloat64()
		if rnd.IntN(2) == 0 {
			rate *= 0.3 + 0.7*rnd.Float64()
		}
		return rate
	}
	for range 200 {
		var of, to []float64
		for range 21 {
			of, to = append(of, slot(88)), append(to, slot(100))
		}
		got, err := stats.TopRatio(of, to)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(got-0.88) > 0.02 {
			t.Errorf("got %.3f, want 0.88 +- 0.02", got)
		}
	}
}

func TestTopRatio_Errors(t *testing.T) {
	five := []float64{1, 1, 1, 1, 1}
	if _, err := stats.TopRatio(five[:4], five[:4]); !errors.Is(err, stats.ErrTooFew) {
		t.Errorf("four slots: got %v, want ErrTooFew", err)
	}
	if _, err := stats.TopRatio(five, five[:4]); err == nil {
		t.Error("different lengths were accepted")
	}
	if _, err := stats.TopRatio(five, make([]float64, 5)); err == nil {
		t.Error("a baseline of zeros was accepted")
	}
}

func TestPairedRatio_DriftCancels(t *testing.T) {
	var of, to []float64
	for i := range 21 {
		speed := 1 + float64(i)/10
		of, to = append(of, 90*speed), append(to, 100*speed)
	}
	got, err := stats.PairedRatio(of, to)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(got-0.9) > 1e-9 {
		t.Errorf("got %v, want 0.9", got)
	}
	if _, err := stats.PairedRatio(nil, nil); !errors.Is(err, stats.ErrTooFew) {
		t.Errorf("nothing: got %v, want ErrTooFew", err)
	}
}

func TestQuantile(t *testing.T) {
	values := []float64{4, 1, 3, 2}
	for _, tt := range []struct{ q, want float64 }{{0, 1}, {0.25, 1}, {0.5, 2}, {0.51, 3}, {0.99, 4}, {1, 4}} {
		got, err := stats.Quantile(values, tt.q)
		if err != nil {
			t.Fatal(err)
		}
		if got != tt.want {
			t.Errorf("q=%v: got %v, want %v", tt.q, got, tt.want)
		}
	}
	if d := cmp.Diff([]float64{4, 1, 3, 2}, values); d != "" {
		t.Errorf("the argument was changed (-want +got):\n%s", d)
	}
}

func TestRotate_EveryPlace(t *testing.T) {
	const n = 4
	places := map[[2]int]int{}
	for r := range n {
		for place, variant := range stats.Rotate(n, r) {
			places[[2]int{variant, place}]++
		}
	}
	if len(places) != n*n {
		t.Errorf("got %d of %d combinations of variant and place", len(places), n*n)
	}
}

func TestHistogram(t *testing.T) {
	var h stats.Histogram
	if got := h.Quantile(0.5); got != 0 {
		t.Errorf("empty: got %d, want 0", got)
	}
	for ns := range int64(1000) {
		h.Add(ns)
	}
	h.Add(-5)
	h.Add(1 << 40)
	if got := h.Quantile(0.5); got < 484 || got > 516 {
		t.Errorf("median: got %d, want 500 +- 16", got)
	}
	if got := h.Quantile(1); got < 2_000_000 {
		t.Errorf("largest: got %d, want the last bucket", got)
	}
	if got := h.Count(); got != 1002 {
		t.Errorf("count: got %d, want 1002", got)
	}
	h.Reset()
	if got := h.Count(); got != 0 {
		t.Errorf("count after Reset: got %d", got)
	}
	if n := testing.AllocsPerRun(100, func() { h.Add(5000) }); n != 0 {
		t.Errorf("Add allocates %v times", n)
	}
}
