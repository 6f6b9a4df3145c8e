// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ProgramTime is how long a BPF program ran, as the kernel counts it: a second witness beside the
// ratios. The count itself costs some 30 ns a run, the same for all; the empty programs show it.
type ProgramTime struct {
	Variant  string   `json:"variant"`
	Workload Workload `json:"workload"`
	Program  string   `json:"program"`
	Runs     uint64   `json:"runs"`
	NS       float64  `json:"ns"` // per run
}

// timePrograms runs one more slot per pair with the kernel's statistics on, which are off while
// the ratios are measured because they cost time.
func (b *Bench) timePrograms(pairs []pair, w Workload) error {
	if !b.cfg.Programs {
		return nil
	}
	statistics, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return fmt.Errorf("time programs: %w", err)
	}
	defer statistics.Close()
	for i := range pairs {
		p := &pairs[i]
		before := make([]ebpf.ProgramStats, len(p.path.Programs))
		for j, prog := range p.path.Programs {
			s, err := prog.Stats()
			if err != nil {
				return fmt.Errorf("time %s: %w", prog.Name, err)
			}
			before[j] = *s
		}
		if _, err := p.slot(w, b.cfg.Slot); err != nil {
			return err
		}
		for j, prog := range p.path.Programs {
			s, err := prog.Stats()
			if err != nil {
				return fmt.Errorf("time %s: %w", prog.Name, err)
			}
			t := ProgramTime{Variant: p.name, Workload: w, Program: prog.Name, Runs: s.RunCount - before[j].RunCount}
			if t.Runs > 0 {
				t.NS = float64(s.Runtime-before[j].Runtime) / float64(t.Runs)
			}
			b.programs = append(b.programs, t)
			b.progress("%-8s %-14s %-18s %9d runs %6.0f ns", w, p.name, t.Program, t.Runs, t.NS)
		}
	}
	return nil
}
