// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// rotations are rotations whose first floor, ours and second floor took so many milliseconds.
func rotations(n int, before, ours, after int) []beside {
	took := func(ms int) sample {
		return sample{wall: time.Duration(ms) * time.Millisecond, cpu: time.Duration(ms) * time.Millisecond / 2}
	}
	return slices.Repeat([]beside{{floor: [2]sample{took(before), took(after)}, ours: took(ours)}}, n)
}

func TestBesideLine(t *testing.T) {
	for _, tt := range []struct {
		name string
		all  []beside
		want Line
	}{
		{
			"met", rotations(5, 50, 100, 60),
			Line{Ratio: 0.5, P50: 0.5, CPU: 0.5, OfNS: 100e6, ToNS: 50e6, Goal: 1. / 3, Met: true, Valid: true},
		},
		{
			"missed", rotations(6, 10, 40, 10),
			Line{Ratio: 0.25, P50: 0.25, CPU: 0.25, OfNS: 40e6, ToNS: 10e6, Goal: 1. / 3, Valid: true},
		},
		{
			"unsteady-do-not-count", append(rotations(5, 50, 100, 50), rotations(4, 50, 1, 100)...),
			Line{Ratio: 0.5, P50: 0.5, CPU: 0.5, OfNS: 100e6, ToNS: 50e6, Goal: 1. / 3, Met: true, Valid: true},
		},
		{
			"too-few-steady", append(rotations(4, 50, 100, 50), rotations(2, 50, 100, 90)...),
			Line{Goal: 1. / 3, Why: "the floor moved by more than a quarter in 2 of 6 rotations"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Row, tt.want.What = "X", "what"
			if d := cmp.Diff(tt.want, besideLine("X", "what", 3, tt.all), cmpopts.EquateApprox(1e-9, 0)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestMeasureBeside_UntilEnoughAreSteady(t *testing.T) {
	for _, tt := range []struct {
		name   string
		floors []time.Duration // of one rotation after the other, in turns
		want   int
	}{
		{"steady", []time.Duration{4, 5}, 5},
		{"every-second", []time.Duration{4, 5, 4, 8}, 9},
		{"never", []time.Duration{4, 8}, 15},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := 0
			floor := func() (sample, error) {
				n++
				return sample{wall: tt.floors[(n-1)%len(tt.floors)]}, nil
			}
			ours := func() (sample, error) { return sample{wall: 9}, nil }
			all, err := measureBeside(t.Context(), Config{Rotations: 5}, "X", ours, floor)
			if err != nil || len(all) != tt.want {
				t.Errorf("got %d rotations and %v, want %d", len(all), err, tt.want)
			}
		})
	}
	broken := errors.New("broken")
	if _, err := measureBeside(t.Context(), Config{}, "X", nil, func() (sample, error) { return sample{}, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}
