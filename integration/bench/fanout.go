// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/weft-net/weft/internal/stats"
)

// Goals of C4 for the API server with a thousand clients, as the ratios that they are printed as: of
// the processor time for each event that is delivered, against a bare loop, etcd, its proxy, and etcd
// at many events with a window; of the lag, one client against all; of the etcd behind it, one client
// against all. C4b is what is encoded for one client against all.
const (
	fanoutFloorGoal  = 1 / 1.15
	fanoutEtcdGoal   = 1 / 0.8
	fanoutProxyGoal  = 1
	fanoutWindowGoal = 1 / 0.5
	fanoutLagGoal    = 1 / 2.0
	fanoutBehindGoal = 0.95 // the same, as exactly as processor time can be told
	encodeGoal       = 1 / 1.05
)

// fanoutLoad is how many events happen in a slot, and how many a second: few enough for all servers to
// keep up on two processors, and for the window as many as its goal is made for.
type fanoutLoad struct {
	events, perSecond             int
	manyEvents, manyEventsASecond int
	// control is where the floor's processor time over the etcd's has to be, with all clients. Outside
	// the machine, or the load on it, is another than the goals are made for.
	control [2]float64
}

func defaultFanoutLoad() fanoutLoad { return fanoutLoad{60, 20, 250, 500, [2]float64{0.55, 0.85}} }

// fanout is the benchmark of C4: slots by kind and number of clients.
type fanout struct {
	*served
	load  fanoutLoad
	slots map[string]map[int][]watchSlot
	many  map[string][]watchSlot // at many events a second
}

// measureFanout is C4.
func measureFanout(ctx context.Context, cfg Config) ([]Line, error) {
	return runFanout(ctx, cfg, defaultFanoutLoad())
}

// runFanout is C4 with a load of its own.
func runFanout(ctx context.Context, cfg Config, load fanoutLoad) (_ []Line, err error) {
	s, err := newServed(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	f := &fanout{served: s, load: load, slots: map[string]map[int][]watchSlot{}, many: map[string][]watchSlot{}}
	kinds := []string{kindFloor, kindWeft, kindEtcd, kindProxy}
	for _, kind := range kinds {
		f.slots[kind] = map[int][]watchSlot{}
		if kind != kindEtcd {
			if err := s.serve(ctx, kind); err != nil {
				return nil, err
			}
		}
	}
	counts := []int{1, max(2, cfg.Clients/10), max(3, cfg.Clients)}
	for _, n := range counts {
		for _, kind := range kinds {
			if err := s.open(ctx, kind, n); err != nil {
				return nil, err
			}
		}
		err := f.rotate(ctx, cfg, kinds, func(kind string) error {
			slot, err := s.slot(ctx, kind, n, load.events, load.perSecond)
			f.slots[kind][n] = append(f.slots[kind][n], slot)
			return err
		})
		if err != nil {
			return nil, err
		}
		f.progress(cfg, n)
	}
	all := counts[len(counts)-1]
	// The window has a server of its own. Its clients watch what those of the other do, who are in the
	// way then.
	if err := f.leave(kindWeft); err != nil {
		return nil, err
	}
	if err := s.serve(ctx, kindCoalesced); err != nil {
		return nil, err
	}
	if err := s.open(ctx, kindCoalesced, all); err != nil {
		return nil, err
	}
	err = f.rotate(ctx, cfg, []string{kindEtcd, kindCoalesced}, func(kind string) error {
		slot, err := s.slot(ctx, kind, all, load.manyEvents, load.manyEventsASecond)
		f.many[kind] = append(f.many[kind], slot)
		return err
	})
	if err != nil {
		return nil, err
	}
	return f.lines(counts), nil
}

// rotate has each kind do something in turns, each as often as the others.
func (f *fanout) rotate(ctx context.Context, cfg Config, kinds []string, do func(kind string) error) error {
	for r := range max(stats.TopN, cfg.Rotations/3) {
		for _, i := range stats.Rotate(len(kinds), r) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := do(kinds[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// leave ends a server and its clients.
func (f *fanout) leave(kind string) error {
	err := errors.Join(f.clients[kind].stop(), f.servers[kind].stop())
	delete(f.clients, kind)
	delete(f.servers, kind)
	return err
}

func (f *fanout) progress(cfg Config, n int) {
	if cfg.Progress == nil {
		return
	}
	for _, kind := range []string{kindFloor, kindWeft, kindEtcd, kindProxy} {
		slots := f.slots[kind][n]
		fmt.Fprintf(cfg.Progress, "C4: %d clients of %s: %.1f us an event, p50 %.2f ms, p99 %.2f ms\n", n, kind,
			1e6*medianOf(slots, watchSlot.server), 1e3*medianOf(slots, watchSlot.lag50), 1e3*medianOf(slots, watchSlot.lag99))
	}
}

func (s watchSlot) server() float64 { return s.cpu }
func (s watchSlot) behind() float64 { return s.etcd }
func (s watchSlot) lag50() float64  { return s.p50 }
func (s watchSlot) lag99() float64  { return s.p99 }

// each is one figure of all slots.
func each(slots []watchSlot, of func(watchSlot) float64) []float64 {
	out := make([]float64, len(slots))
	for i, s := range slots {
		out[i] = of(s)
	}
	return out
}

func medianOf(slots []watchSlot, of func(watchSlot) float64) float64 {
	m, _ := median(each(slots, of))
	return m
}

// lines are the results.
func (f *fanout) lines(counts []int) []Line {
	var lines []Line
	one, all := counts[0], counts[len(counts)-1]
	compare := func(what string, goal float64, ours, other []watchSlot, of func(watchSlot) float64) {
		lines = append(lines, pairedLine("C4", what, goal, each(ours, of), each(other, of)))
	}
	for _, n := range counts {
		goals := map[string]float64{}
		if n == all {
			goals = map[string]float64{kindFloor: fanoutFloorGoal, kindEtcd: fanoutEtcdGoal, kindProxy: fanoutProxyGoal}
		}
		for _, kind := range []string{kindFloor, kindEtcd, kindProxy} {
			compare(fmt.Sprintf("processor time of an event to one of %d clients: %s / weft", n, kind), goals[kind],
				f.slots[kindWeft][n], f.slots[kind][n], watchSlot.server)
		}
		for _, kind := range []string{kindFloor, kindEtcd, kindProxy} {
			compare(fmt.Sprintf("p99 of the lag, %d clients: %s / weft", n, kind), 0, f.slots[kindWeft][n], f.slots[kind][n], watchSlot.lag99)
		}
	}
	compare(fmt.Sprintf("the same at %d events/s and %d clients: etcd / weft with a window of %v", f.load.manyEventsASecond, all, coalesceWindow),
		fanoutWindowGoal, f.many[kindCoalesced], f.many[kindEtcd], watchSlot.server)
	compare("p99 of the lag then: etcd / weft", 0, f.many[kindCoalesced], f.many[kindEtcd], watchSlot.lag99)
	for _, kind := range []string{kindWeft, kindEtcd, kindFloor} {
		goal := 0.0
		if kind == kindWeft {
			goal = fanoutLagGoal
		}
		compare(fmt.Sprintf("p99 of the lag of %s: one client / %d", kind, all), goal, f.slots[kind][all], f.slots[kind][one], watchSlot.lag99)
	}
	compare(fmt.Sprintf("processor time of the etcd behind weft: one client / %d", all), fanoutBehindGoal,
		f.slots[kindWeft][all], f.slots[kindWeft][one], watchSlot.behind)
	return f.judge(lines, f.slots[kindEtcd][all], f.slots[kindFloor][all])
}

// judge voids lines whose control is not where it should be.
func (f *fanout) judge(lines []Line, etcd, floor []watchSlot) []Line {
	control, err := stats.PairedRatio(each(floor, watchSlot.server), each(etcd, watchSlot.server))
	low, high := f.load.control[0], f.load.control[1]
	for i := range lines {
		l := &lines[i]
		switch {
		case err != nil:
			l.Valid, l.Why = false, err.Error()
		case control < low || control > high:
			l.Valid, l.Why = false, fmt.Sprintf("floor/etcd %.3f is outside %.2f..%.2f", control, low, high)
		case l.Valid:
			l.Why = fmt.Sprintf("floor/etcd %.3f", control)
		}
	}
	return lines
}

// pairedLine compares figures of which less is better, taken in turns: what others need over what we do.
// They are of processor time or of the slowest, where the best slots are not those to look at.
func pairedLine(row, what string, goal float64, ours, other []float64) Line {
	l := Line{Row: row, What: what, Goal: goal}
	var err error
	if l.Ratio, err = stats.PairedRatio(other, ours); err != nil {
		l.Why = err.Error()
		return l
	}
	l.P50, l.Valid, l.Met = l.Ratio, true, l.Ratio >= goal
	of, _ := median(ours)
	to, _ := median(other)
	l.OfNS, l.ToNS = of*1e9, to*1e9
	return l
}

// measureEncoding is C4b: what is encoded of events for one client, and for many.
func measureEncoding(ctx context.Context, cfg Config) (_ []Line, err error) {
	s, err := newServed(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.serve(ctx, kindWeft); err != nil {
		return nil, err
	}
	const events, perSecond = 100, 200
	encoded := map[int]uint64{}
	all := max(2, cfg.Clients)
	for _, n := range []int{1, all} {
		if err := s.open(ctx, kindWeft, n); err != nil {
			return nil, err
		}
		var before, after serveAnswer
		if err := s.servers[kindWeft].ask("encoded", &before); err != nil {
			return nil, err
		}
		if _, err := s.slot(ctx, kindWeft, n, events, perSecond); err != nil {
			return nil, err
		}
		if err := s.servers[kindWeft].ask("encoded", &after); err != nil {
			return nil, err
		}
		encoded[n] = after.Encoded - before.Encoded
	}
	l := Line{Row: "C4b", What: fmt.Sprintf("bytes of events that are encoded: for one client / for %d", all), Goal: encodeGoal, Valid: encoded[1] > 0}
	if encoded[all] > 0 {
		l.Ratio = float64(encoded[1]) / float64(encoded[all])
	}
	l.Met = l.Ratio >= l.Goal
	return []Line{l}, nil
}
