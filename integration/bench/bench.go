// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/weft-net/weft/internal/stats"
)

// Config says how to measure.
type Config struct {
	Rotations int           // how often each variant gets a slot; at least stats.TopN
	Slot      time.Duration // length of a slot
	CPU       int           // the processor that both ends are pinned to
	Family    int           // 4 or 6
	Programs  bool          // time BPF programs too
	Missed    int           // revisions that a node misses in C5
	Clients   int           // of an API server, at the most
	Remotes   int           // clusters that are copied in the row copies
	Churn     time.Duration // how long rows change there
	Weft      string        // the binary that meshes are built of
	Progress  io.Writer     // what happens, for people; nil: nothing
}

// DefaultConfig is what the goals are defined for.
func DefaultConfig() Config {
	return Config{Rotations: 21, Slot: 350 * time.Millisecond, CPU: 1, Family: 4, Missed: 36_000, Clients: 1000, Remotes: 250, Churn: time.Minute, Weft: "build/weft"}
}

// Validate refuses what cannot give an estimate.
func (c Config) Validate() error {
	if c.Rotations < stats.TopN {
		return fmt.Errorf("%d rotations: at least %d are needed", c.Rotations, stats.TopN)
	}
	if c.Slot < time.Millisecond {
		return fmt.Errorf("slot of %s: at least 1 ms is needed", c.Slot)
	}
	if c.Family != 4 && c.Family != 6 {
		return fmt.Errorf("family %d: 4 or 6", c.Family)
	}
	return nil
}

// Bench builds variants and measures them. Close removes all it built.
type Bench struct {
	cfg      Config
	variants []Variant
	worlds   []*World
	failed   map[string]error // variants that could not be built
	paths    map[string]Path
	broken   map[variantWorkload]error
	programs []ProgramTime
}

// variantWorkload names what can be broken: a variant may carry one workload and not another.
type variantWorkload struct {
	variant  string
	workload Workload
}

// NewBench prepares a measurement; nothing is built yet.
func NewBench(cfg Config, all []Variant) (*Bench, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Bench{cfg: cfg, variants: all, paths: map[string]Path{}, failed: map[string]error{}, broken: map[variantWorkload]error{}}, nil
}

// Close removes everything that was built.
func (b *Bench) Close() error {
	var errs []error
	for _, w := range b.worlds {
		errs = append(errs, w.Close())
	}
	b.worlds = nil
	return errors.Join(errs...)
}

// Run measures rows and calls report for each result as soon as it stands. An error is one of the
// harness; a variant that does not work makes the lines that need it void.
func (b *Bench) Run(ctx context.Context, rows []Row, report func(Line)) error {
	byWorkload := map[Workload]measured{}
	for _, w := range []Workload{TCPRR, TCPCRR, UDPRR, Stream} {
		names := need(rows, w)
		if len(names) == 0 {
			continue
		}
		m, err := b.measure(ctx, w, names)
		if ctx.Err() != nil {
			return ctx.Err() // whatever failed, failed because the workers were killed
		}
		if err != nil {
			return fmt.Errorf("measure %s: %w", w, err)
		}
		byWorkload[w] = m
	}
	for _, row := range rows {
		if row.Measure != nil {
			lines, err := row.Measure(ctx, b.cfg)
			if err != nil {
				lines = append(lines, Line{Row: row.Name, What: row.What, Why: err.Error()})
			}
			for _, l := range lines {
				report(l)
			}
			continue
		}
		for _, r := range row.Ratios {
			report(b.line(row, r, byWorkload))
		}
	}
	return nil
}

// line is the result of one ratio, valid or void.
func (b *Bench) line(row Row, r Ratio, by map[Workload]measured) Line {
	m := by[r.Workload]
	l, err := m.line(r)
	l.Row, l.What = row.Name, row.What
	for _, v := range []string{r.Of, r.To} {
		if err := b.broken[variantWorkload{v, r.Workload}]; err != nil {
			l.Why = fmt.Sprintf("%s: %v", v, err)
			return l
		}
		if l.Why = m.failures(v); l.Why != "" {
			return l
		}
	}
	if err != nil {
		l.Why = err.Error()
		return l
	}
	l.Valid = true
	for w, m := range by {
		var controls []Control
		for _, c := range row.Controls {
			if c.Workload == w {
				controls = append(controls, c)
			}
		}
		if len(controls) == 0 {
			continue
		}
		valid, why := m.judge(controls)
		l.Valid = l.Valid && valid
		l.Why = why
	}
	return l
}

// measure interleaves the named variants under one workload. Variants that cannot be built are
// left out of the result.
func (b *Bench) measure(ctx context.Context, w Workload, names []string) (_ measured, err error) {
	var pairs []pair
	defer func() {
		for _, p := range pairs {
			err = errors.Join(err, p.client.stop(), p.server.stop())
		}
	}()
	for _, name := range names {
		path, err := b.path(name)
		if err != nil {
			b.breaks(name, w, err)
			continue
		}
		p, err := b.start(ctx, name, path, w)
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, p)
	}
	working := pairs[:0:0]
	for _, p := range pairs {
		if err := p.try(w); err != nil {
			b.breaks(p.name, w, err)
			continue
		}
		working = append(working, p)
	}
	b.progress("%s: %d rotations of %d variants, %s", w, b.cfg.Rotations, len(working),
		time.Duration(b.cfg.Rotations*len(working))*b.cfg.Slot)
	m := measured{}
	for r := range b.cfg.Rotations {
		for _, i := range stats.Rotate(len(working), r) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			p := &working[i]
			s, err := p.slot(w, b.cfg.Slot)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
			m[p.name] = append(m[p.name], s)
		}
	}
	for _, p := range working {
		if p.path.Check == nil {
			continue
		}
		if err := p.path.Check(); err != nil {
			b.breaks(p.name, w, err)
		}
	}
	return m, b.timePrograms(working, w)
}

// breaks notes that a variant does not carry a workload.
func (b *Bench) breaks(name string, w Workload, err error) {
	b.broken[variantWorkload{name, w}] = err
	b.progress("%s: %s: %v", w, name, err)
}

// start starts both ends of a path.
func (b *Bench) start(ctx context.Context, name string, path Path, w Workload) (pair, error) {
	listen := path.Listen
	if !listen.IsValid() {
		listen = path.Target
	}
	softirq, err := softirqThread(b.cfg.CPU)
	if err != nil {
		return pair{}, err
	}
	server, err := startProcess(ctx, path.Server, "server", b.cfg.CPU, w, listen, 1)
	if err != nil {
		return pair{}, err
	}
	client, err := startProcess(ctx, path.Client, "client", b.cfg.CPU, w, path.Target, path.Spread)
	if err != nil {
		return pair{}, errors.Join(err, server.stop())
	}
	return pair{name, path, client, server, b.cfg.CPU, softirq}, nil
}

// path returns a variant's path. A variant is built once, whether that works or not.
func (b *Bench) path(name string) (Path, error) {
	if p, ok := b.paths[name]; ok {
		return p, nil
	}
	if err := b.failed[name]; err != nil {
		return Path{}, err
	}
	p, err := b.build(name)
	if err != nil {
		b.failed[name] = fmt.Errorf("build: %w", err)
		return Path{}, b.failed[name]
	}
	b.paths[name] = p
	return p, nil
}

// build builds a variant in a world of its own.
func (b *Bench) build(name string) (Path, error) {
	i := slices.IndexFunc(b.variants, func(v Variant) bool { return v.Name == name })
	if i < 0 {
		return Path{}, errors.New("no such variant")
	}
	w := newWorld(fmt.Sprintf("wb%d-%s", os.Getpid(), name), b.cfg.Family)
	b.worlds = append(b.worlds, w)
	p, err := b.variants[i].Build(w)
	if err != nil {
		return Path{}, err
	}
	p.Programs = w.loaded
	return p, nil
}

// progress tells people what happens.
func (b *Bench) progress(format string, args ...any) {
	if b.cfg.Progress != nil {
		fmt.Fprintf(b.cfg.Progress, format+"\n", args...)
	}
}
