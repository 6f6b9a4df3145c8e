// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package stats estimates ratios from measurements on a noisy machine. It is pure arithmetic for
// benchmarks and tests, not for what a node reports. It is a leaf: everybody may import it.
package stats

import (
	"cmp"
	"errors"
	"math"
	"slices"
)

// TopN is how many of the best slots count in [TopRatio].
const TopN = 5

// ErrTooFew is returned where there are not enough measurements for an estimate.
var ErrTooFew = errors.New("too few measurements")

// TopRatio estimates how much faster (above 1) or slower (below 1) "of" is than "to", both given
// as rates, higher being better, one per slot. It compares the means of the [TopN] best slots.
//
// Disturbance by others only ever slows a slot down, so the best slots of interleaved variants are
// the undisturbed ones, while medians move with the load. That holds only if both had the same
// number of chances: the lengths must be equal.
func TopRatio(of, to []float64) (float64, error) {
	if len(of) != len(to) {
		return 0, errors.New("different numbers of slots")
	}
	a, err := topMean(of)
	if err != nil {
		return 0, err
	}
	b, err := topMean(to)
	if err != nil {
		return 0, err
	}
	if b == 0 {
		return 0, errors.New("the best slots of the baseline are zero")
	}
	return a / b, nil
}

// topMean is the mean of the TopN largest values.
func topMean(rates []float64) (float64, error) {
	if len(rates) < TopN {
		return 0, ErrTooFew
	}
	s := slices.Clone(rates)
	slices.SortFunc(s, func(x, y float64) int { return cmp.Compare(y, x) })
	sum := 0.0
	for _, r := range s[:TopN] {
		sum += r
	}
	return sum / TopN, nil
}

// PairedRatio is the median of of[i]/to[i]. The i-th slots of two variants lie next to each other
// in time, so that slow changes of the machine cancel out.
func PairedRatio(of, to []float64) (float64, error) {
	if len(of) != len(to) {
		return 0, errors.New("different numbers of slots")
	}
	ratios := make([]float64, 0, len(of))
	for i := range of {
		if to[i] > 0 && !math.IsNaN(of[i]) {
			ratios = append(ratios, of[i]/to[i])
		}
	}
	return Quantile(ratios, 0.5)
}

// Quantile is the smallest value that at least the share q (0 to 1) of the values do not exceed.
func Quantile(values []float64, q float64) (float64, error) {
	if len(values) == 0 {
		return 0, ErrTooFew
	}
	s := slices.Clone(values)
	slices.Sort(s)
	i := int(math.Ceil(q*float64(len(s)))) - 1
	return s[min(max(i, 0), len(s)-1)], nil
}

// Rotate says in which order n variants run in a rotation: each rotation starts one further, so
// that over n rotations every variant has run in every place.
func Rotate(n, rotation int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = (i + rotation) % n
	}
	return order
}
