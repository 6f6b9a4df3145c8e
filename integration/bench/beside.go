// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/stats"
)

// sample is what one piece of work took.
type sample struct {
	wall time.Duration
	cpu  time.Duration // of this process, all threads
}

// timed measures f.
func timed(f func() error) (sample, error) {
	cpu, began := ownCPU(), time.Now()
	err := f()
	return sample{time.Since(began), ownCPU() - cpu}, err
}

// ownCPU is the processor time of this process so far.
func ownCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0 // it takes no argument that could be wrong
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// beside is a way to do something, with the least that it could cost measured right before and
// right after it.
type beside struct {
	floor [2]sample
	ours  sample
}

// maxDrift is how far the two floors of a rotation may be apart. Beyond, the machine was another one
// before than after, and the rotation does not count.
const maxDrift = 1.25

// steady says whether the rotation counts.
func (b beside) steady() bool {
	lo, hi := min(b.floor[0].wall, b.floor[1].wall), max(b.floor[0].wall, b.floor[1].wall)
	return float64(hi) <= maxDrift*float64(lo)
}

// measureBeside takes rotations of floor, ours, floor until enough of them are steady, at most three
// times as many.
func measureBeside(ctx context.Context, cfg Config, what string, ours, floor func() (sample, error)) ([]beside, error) {
	wanted := max(stats.TopN, cfg.Rotations/3)
	var all []beside
	for steady := 0; steady < wanted && len(all) < 3*wanted; {
		var b beside
		for i, f := range []func() (sample, error){floor, ours, floor} {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			s, err := f()
			if err != nil {
				return nil, err
			}
			switch i {
			case 0:
				b.floor[0] = s
			case 1:
				b.ours = s
			default:
				b.floor[1] = s
			}
		}
		all = append(all, b)
		if b.steady() {
			steady++
		}
		if cfg.Progress != nil {
			fmt.Fprintf(cfg.Progress, "%s: %v (cpu %v) beside %v and %v (cpu %v)\n", what, b.ours.wall, b.ours.cpu,
				b.floor[0].wall, b.floor[1].wall, min(b.floor[0].cpu, b.floor[1].cpu))
		}
	}
	return all, nil
}

// besideLine is the floor's time over ours, so that more is better as everywhere. atMost is the goal:
// how many times the floor it may take.
func besideLine(row, what string, atMost float64, all []beside) Line {
	var ours, floor, oursCPU, floorCPU []float64
	for _, b := range all {
		if !b.steady() {
			continue
		}
		ours = append(ours, b.ours.wall.Seconds())
		floor = append(floor, min(b.floor[0].wall, b.floor[1].wall).Seconds())
		oursCPU = append(oursCPU, b.ours.cpu.Seconds())
		floorCPU = append(floorCPU, min(b.floor[0].cpu, b.floor[1].cpu).Seconds())
	}
	l := ratioLine(row, what, ours, floor)
	if atMost > 0 {
		l.Goal = 1 / atMost
		l.Met = l.Ratio >= l.Goal
	}
	if l.Valid {
		l.CPU, _ = stats.PairedRatio(floorCPU, oursCPU)
	} else if len(ours) < stats.TopN {
		l.Why = fmt.Sprintf("the floor moved by more than a quarter in %d of %d rotations", len(all)-len(ours), len(all))
	}
	return l
}

// ratioLine compares two lists of seconds, taken in turns.
func ratioLine(row, what string, ours, floor []float64) Line {
	l := Line{Row: row, What: what, Met: true}
	var err error
	if l.Ratio, err = stats.TopRatio(perSecond(ours), perSecond(floor)); err != nil {
		l.Why = err.Error()
		return l
	}
	l.Valid = true
	l.P50, _ = stats.PairedRatio(floor, ours)
	of, _ := stats.Quantile(ours, 0.5)
	to, _ := stats.Quantile(floor, 0.5)
	l.OfNS, l.ToNS = of*1e9, to*1e9
	return l
}

func perSecond(seconds []float64) []float64 {
	out := make([]float64, len(seconds))
	for i, s := range seconds {
		out[i] = 1 / s
	}
	return out
}

func median(values []float64) (float64, error) { return stats.Quantile(values, 0.5) }
