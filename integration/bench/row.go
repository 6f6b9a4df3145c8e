// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/weft-net/weft/internal/stats"
)

// Row is one row of the table of goals.
type Row struct {
	Name string // as in the table of goals: D1
	What string // one sentence
	// Ratios are measured together with all other ratios asked for, interleaved.
	Ratios   []Ratio
	Controls []Control
	// Measure is for a row that is not a ratio of two variants; it returns its own lines. Either
	// this or Ratios.
	Measure func(ctx context.Context, cfg Config) ([]Line, error)
}

// Ratio compares two variants under one workload.
type Ratio struct {
	Workload Workload
	Of, To   string  // names of variants
	Goal     float64 // at least; 0: reported only
	ByP50    bool    // the goal is one for the median latency, not for the best slots
}

// Control is a ratio whose value is known. If it comes out otherwise, the machine was not in the
// state that the goals are made for, and the run is void.
type Control struct {
	Workload  Workload
	Of, To    string
	Low, High float64
}

// Line is one result.
type Line struct {
	Row      string   `json:"row"`
	What     string   `json:"what"`
	Workload Workload `json:"workload,omitempty"`
	Of       string   `json:"of,omitempty"`
	To       string   `json:"to,omitempty"`
	Ratio    float64  `json:"ratio"`           // best slots against best slots; of streams the median
	P50      float64  `json:"p50,omitempty"`   // median latency, above 1 is faster
	CPU      float64  `json:"cpu,omitempty"`   // operations (or bytes) per processor-second
	OfNS     float64  `json:"of_ns,omitempty"` // median latency of each, in nanoseconds
	ToNS     float64  `json:"to_ns,omitempty"`
	Goal     float64  `json:"goal,omitempty"`
	Met      bool     `json:"met"`           // the goal, or true if there is none
	Valid    bool     `json:"valid"`         // the controls are where they should be
	Why      string   `json:"why,omitempty"` // why it is void, or what the controls were
}

// measured holds the slots of one workload by variant.
type measured map[string][]Slot

// rates are operations per second of wall time; for a stream, bytes per processor-second.
func rates(w Workload, slots []Slot) []float64 {
	if w == Stream {
		return perCPU(w, slots)
	}
	out := make([]float64, len(slots))
	for i, s := range slots {
		if s.NS > 0 {
			out[i] = float64(s.Ops) / float64(s.NS) * 1e9
		}
	}
	return out
}

// perCPU are operations, or bytes of a stream, per processor-second of both ends.
func perCPU(w Workload, slots []Slot) []float64 {
	out := make([]float64, len(slots))
	for i, s := range slots {
		done := s.Ops
		if w == Stream {
			done = s.Bytes
		}
		if s.CPU > 0 {
			out[i] = float64(done) / float64(s.CPU) * 1e9
		}
	}
	return out
}

// medians are the median latencies, one per slot.
func medians(slots []Slot) []float64 {
	out := make([]float64, len(slots))
	for i, s := range slots {
		out[i] = float64(s.P50)
	}
	return out
}

// line computes the result of one ratio. An error means that it cannot be computed.
func (m measured) line(r Ratio) (Line, error) {
	l := Line{Workload: r.Workload, Of: r.Of, To: r.To, Goal: r.Goal}
	of, to := m[r.Of], m[r.To]
	if of == nil || to == nil {
		return l, fmt.Errorf("%s or %s was not measured", r.Of, r.To)
	}
	var err error
	// Processor time can be missed as well as added, so that the best slots of a stream are the
	// ones that were counted worst.
	estimate := stats.TopRatio
	if r.Workload == Stream {
		estimate = stats.PairedRatio
	}
	if l.Ratio, err = estimate(rates(r.Workload, of), rates(r.Workload, to)); err != nil {
		return l, fmt.Errorf("%s / %s: %w", r.Of, r.To, err)
	}
	if l.CPU, err = stats.PairedRatio(perCPU(r.Workload, of), perCPU(r.Workload, to)); err != nil {
		return l, fmt.Errorf("processor time of %s / %s: %w", r.Of, r.To, err)
	}
	value := l.Ratio
	if r.Workload != Stream {
		// Latencies: the smaller is the better, so the fraction is upside down.
		if l.P50, err = stats.PairedRatio(medians(to), medians(of)); err != nil {
			return l, fmt.Errorf("median of %s / %s: %w", r.Of, r.To, err)
		}
		l.OfNS, _ = stats.Quantile(medians(of), 0.5)
		l.ToNS, _ = stats.Quantile(medians(to), 0.5)
		if r.ByP50 {
			value = l.P50
		}
	}
	l.Met = value >= r.Goal
	return l, nil
}

// judge says whether the controls hold, and gives their values.
func (m measured) judge(controls []Control) (valid bool, why string) {
	valid = true
	for _, c := range controls {
		l, err := m.line(Ratio{Workload: c.Workload, Of: c.Of, To: c.To})
		if why != "" {
			why += ", "
		}
		switch {
		case err != nil:
			valid = false
			why += err.Error()
		case l.Ratio < c.Low || l.Ratio > c.High:
			valid = false
			why += fmt.Sprintf("%s/%s %.3f is outside %.2f..%.2f", c.Of, c.To, l.Ratio, c.Low, c.High)
		default:
			why += fmt.Sprintf("%s/%s %.3f", c.Of, c.To, l.Ratio)
		}
	}
	return valid, why
}

// failures describes the operations of a variant that failed, or is empty.
func (m measured) failures(variant string) string {
	var n uint64
	first := ""
	for _, s := range m[variant] {
		n += s.Errors
		if first == "" {
			first = s.Error
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s: %d operations failed: %s", variant, n, first)
}

// need lists the variants that rows need under a workload, in order of first use.
func need(rows []Row, w Workload) []string {
	var names []string
	add := func(got Workload, more ...string) {
		for _, n := range more {
			if got == w && !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	for _, row := range rows {
		for _, c := range row.Controls {
			add(c.Workload, c.To, c.Of)
		}
		for _, r := range row.Ratios {
			add(r.Workload, r.To, r.Of)
		}
	}
	return names
}

// choose returns the rows with the given names, in the table's order; none means all.
func choose(all []Row, names []string) ([]Row, error) {
	if len(names) == 0 {
		return all, nil
	}
	var rows []Row
	for _, row := range all {
		if slices.Contains(names, row.Name) {
			rows = append(rows, row)
		}
	}
	for _, n := range names {
		if !slices.ContainsFunc(rows, func(r Row) bool { return r.Name == n }) {
			return nil, fmt.Errorf("no row %q", n)
		}
	}
	return rows, nil
}
