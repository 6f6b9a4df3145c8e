// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// slots are five equal slots of a second.
func slots(ops uint64, p50 int64) []Slot {
	s := Slot{Ops: ops, Bytes: ops * 1000, NS: 1e9, P50: p50, CPU: 5e8}
	return []Slot{s, s, s, s, s}
}

func TestMeasured_Line(t *testing.T) {
	m := measured{"a": slots(90, 110), "b": slots(100, 100)}
	for _, tt := range []struct {
		name  string
		ratio Ratio
		want  Line
	}{
		{
			"goal-met",
			Ratio{Workload: TCPRR, Of: "a", To: "b", Goal: 0.89},
			Line{Workload: TCPRR, Of: "a", To: "b", Ratio: 0.9, P50: 100.0 / 110, CPU: 0.9, OfNS: 110, ToNS: 100, Goal: 0.89, Met: true},
		},
		{
			"goal-missed",
			Ratio{Workload: TCPRR, Of: "a", To: "b", Goal: 0.905},
			Line{Workload: TCPRR, Of: "a", To: "b", Ratio: 0.9, P50: 100.0 / 110, CPU: 0.9, OfNS: 110, ToNS: 100, Goal: 0.905},
		},
		{
			"by-median",
			Ratio{Workload: TCPCRR, Of: "a", To: "b", Goal: 0.905, ByP50: true},
			Line{Workload: TCPCRR, Of: "a", To: "b", Ratio: 0.9, P50: 100.0 / 110, CPU: 0.9, OfNS: 110, ToNS: 100, Goal: 0.905, Met: true},
		},
		{
			"stream-by-processor-time",
			Ratio{Workload: Stream, Of: "a", To: "b"},
			Line{Workload: Stream, Of: "a", To: "b", Ratio: 0.9, CPU: 0.9, Met: true},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := m.line(tt.ratio)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got, cmpopts.EquateApprox(1e-9, 0)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
	if _, err := m.line(Ratio{Workload: TCPRR, Of: "a", To: "c"}); err == nil {
		t.Error("a ratio to what was not measured was computed")
	}
}

func TestMeasured_Judge(t *testing.T) {
	m := measured{"a": slots(90, 110), "b": slots(100, 100)}
	for _, tt := range []struct {
		name      string
		low, high float64
		to        string
		valid     bool
		why       string
	}{
		{"inside", 0.85, 0.95, "b", true, "a/b 0.900"},
		{"below", 0.95, 1, "b", false, "a/b 0.900 is outside 0.95..1.00"},
		{"above", 0.5, 0.8, "b", false, "a/b 0.900 is outside 0.50..0.80"},
		{"not-measured", 0, 1, "c", false, "a or c was not measured"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			valid, why := m.judge([]Control{{TCPRR, "a", tt.to, tt.low, tt.high}})
			if valid != tt.valid || why != tt.why {
				t.Errorf("got %v %q, want %v %q", valid, why, tt.valid, tt.why)
			}
		})
	}
}

func TestNeed_ControlsAndBaselinesFirst(t *testing.T) {
	rows := []Row{
		{Ratios: []Ratio{{Workload: TCPRR, Of: "x", To: "f"}, {Workload: TCPCRR, Of: "y", To: "f"}}, Controls: []Control{{TCPRR, "f", "v", 0, 1}}},
		{Ratios: []Ratio{{Workload: TCPRR, Of: "z", To: "x"}}},
	}
	if d := cmp.Diff([]string{"v", "f", "x", "z"}, need(rows, TCPRR)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if got := need(rows, UDPRR); got != nil {
		t.Errorf("nobody asked for UDP: got %v", got)
	}
}

// TestRows_NameWhatExists holds the table to the list of variants.
func TestRows_NameWhatExists(t *testing.T) {
	known := func(name string) bool {
		return slices.ContainsFunc(variants(), func(v Variant) bool { return v.Name == name })
	}
	seen := map[string]bool{}
	for _, r := range rows(Machine{}) {
		if seen[r.Name] {
			t.Errorf("row %s stands twice", r.Name)
		}
		seen[r.Name] = true
		if (len(r.Ratios) > 0) == (r.Measure != nil) {
			t.Errorf("row %s has both or neither of ratios and a measurement of its own", r.Name)
		}
		for _, x := range r.Ratios {
			if !known(x.Of) || !known(x.To) {
				t.Errorf("row %s: %s or %s is no variant", r.Name, x.Of, x.To)
			}
		}
		for _, c := range r.Controls {
			if !known(c.Of) || !known(c.To) || c.Low >= c.High || math.IsNaN(c.Low) {
				t.Errorf("row %s: control %+v", r.Name, c)
			}
		}
	}
}

func TestLine_Print(t *testing.T) {
	for _, tt := range []struct {
		line Line
		want string
	}{
		{
			Line{Row: "D1", Workload: TCPRR, Of: "a", To: "b", Ratio: 0.95, P50: 0.94, CPU: 0.93, OfNS: 5000, ToNS: 4700, Goal: 0.93, Met: true, Valid: true},
			"D1 tcp-rr a / b 0.950 (p50 0.940: 5.00 / 4.70 us) (cpu 0.930) goal >= 0.93 met valid",
		},
		{
			Line{Row: "D1", Workload: TCPRR, Of: "a", To: "b", Ratio: 0.9, Goal: 0.93, Why: "load"},
			"D1 tcp-rr a / b 0.900 goal >= 0.93 MISSED VOID: load",
		},
		{Line{Row: "C2", What: "own", Ratio: 1.1, Met: true, Valid: true}, "C2 own 1.100 valid"},
	} {
		var b bytes.Buffer
		tt.line.print(&b)
		got := strings.Join(strings.Fields(b.String()), " ")
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
}

func TestReachLines(t *testing.T) {
	var times reachTimes
	for i := range 100 {
		times.Watch = append(times.Watch, float64(1000*(i+1)))
		times.Maps = append(times.Maps, float64(1250*(i+1)))
	}
	got, err := reachLines(times)
	if err != nil {
		t.Fatal(err)
	}
	want := []Line{
		{Row: "C2", What: "p50: bare watch 50 us / maps 62 us", Ratio: 0.8, OfNS: 62500, ToNS: 50000, Goal: 1 / 1.15, Valid: true},
		{Row: "C2", What: "p99: bare watch 99 us / maps 124 us", Ratio: 0.8, OfNS: 123750, ToNS: 99000, Goal: 1 / 1.5, Met: true, Valid: true},
	}
	if d := cmp.Diff(want, got, cmpopts.EquateApprox(1e-9, 0)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if _, err := reachLines(reachTimes{}); err == nil {
		t.Error("no times gave lines")
	}
}
