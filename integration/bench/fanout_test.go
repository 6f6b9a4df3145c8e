// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestFanout_MeasuresEachServer runs C4 with next to nothing: every server tells every client every
// event, or the row ends with an error.
func TestFanout_MeasuresEachServer(t *testing.T) {
	cfg := Config{Rotations: 5, Clients: 6}
	lines, err := runFanout(t.Context(), cfg, fanoutLoad{5, 500, 20, 1000, [2]float64{0, 1000}})
	if err != nil {
		t.Fatal(err)
	}
	goals := 0
	for _, l := range lines {
		if !l.Valid || l.Ratio <= 0 {
			t.Errorf("%s: ratio %v: %s", l.What, l.Ratio, l.Why)
		}
		if l.Goal > 0 {
			goals++
		}
	}
	if goals != 6 {
		t.Errorf("%d lines have a goal, want 6", goals)
	}
}

// TestFanout_IsVoidWithoutItsControl has a floor that costs what etcd does.
func TestFanout_IsVoidWithoutItsControl(t *testing.T) {
	f := &fanout{load: defaultFanoutLoad()}
	slots := []watchSlot{{cpu: 1}}
	for _, tt := range []struct {
		floor float64
		valid bool
	}{{1, false}, {0.7, true}, {0.1, false}} {
		got := f.judge([]Line{{Valid: true}}, slots, []watchSlot{{cpu: tt.floor}})
		if got[0].Valid != tt.valid || got[0].Why == "" {
			t.Errorf("floor/etcd %v: %+v", tt.floor, got[0])
		}
	}
}

// TestEncoding_IsTheSameForAll runs C4b, which is exact however few clients there are.
func TestEncoding_IsTheSameForAll(t *testing.T) {
	lines, err := measureEncoding(t.Context(), Config{Clients: 5})
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) != 1 || !lines[0].Valid || !lines[0].Met {
		t.Errorf("%+v", lines)
	}
}

// TestPairedLine_LessIsBetter compares figures whose ratio is known.
func TestPairedLine_LessIsBetter(t *testing.T) {
	got := pairedLine("C4", "what", 1.5, []float64{1, 2, 3}, []float64{2, 4, 6})
	want := Line{Row: "C4", What: "what", Goal: 1.5, Ratio: 2, P50: 2, Met: true, Valid: true, OfNS: 2e9, ToNS: 4e9}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := pairedLine("C4", "what", 2.5, []float64{1}, []float64{2}); got.Met || !got.Valid {
		t.Errorf("a goal that is missed: %+v", got)
	}
	if got := pairedLine("C4", "what", 1, nil, nil); got.Valid || got.Why == "" {
		t.Errorf("nothing measured: %+v", got)
	}
}
