// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Command bench measures the rows of the table of goals. Each result is a ratio of two ways to
// move packets (or facts) that ran interleaved on the same processor, printed with its goal and
// with whether the controls make the run valid, and added to build/bench.json.
//
// It needs root and a machine that is not busy with other measurements. It is for developers, not
// part of the product, and nothing imports it. The method is described at [stats.TopRatio].
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/stats"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == workerArg {
		if err := runWorker(os.Args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// command is the program without its process.
func command(ctx context.Context, args []string, out, errOut io.Writer) (err error) {
	cfg := DefaultConfig()
	cfg.Progress = errOut
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(errOut)
	names := flags.String("rows", "", "rows to measure, separated by commas; empty: all")
	list := flags.Bool("list", false, "list the rows and stop")
	result := flags.String("o", "build/bench.json", "file that the results are added to; empty: none")
	check := flags.Bool("check", false, "end with an error if a goal is missed or a line is void")
	flags.IntVar(&cfg.Rotations, "rotations", cfg.Rotations, fmt.Sprintf("slots per variant, at least %d", stats.TopN))
	flags.DurationVar(&cfg.Slot, "slot", cfg.Slot, "length of a slot")
	flags.IntVar(&cfg.CPU, "cpu", cfg.CPU, "processor that both ends are pinned to")
	flags.IntVar(&cfg.Family, "family", cfg.Family, "4 or 6: the addresses of pods and wires")
	flags.BoolVar(&cfg.Programs, "programs", false, "time BPF programs too, in slots of their own")
	profile := flags.String("cpuprofile", "", "file for a profile of this process's processor time; empty: none")
	flags.IntVar(&cfg.Missed, "missed", cfg.Missed, "revisions that a node misses in C5")
	flags.IntVar(&cfg.Clients, "clients", cfg.Clients, "clients of an API server, at the most, in C4, C4b, herd and resume")
	flags.IntVar(&cfg.Remotes, "remotes", cfg.Remotes, "clusters that are copied in the row copies, 250 at the most; 25 is the short form")
	flags.DurationVar(&cfg.Churn, "churn", cfg.Churn, "how long rows change in the row copies")
	flags.StringVar(&cfg.Weft, "weft", cfg.Weft, "binary that meshes are built of")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var wanted []string
	for name := range strings.SplitSeq(*names, ",") {
		if name = strings.TrimSpace(name); name != "" {
			wanted = append(wanted, name)
		}
	}
	machine := observe()
	chosen, err := choose(rows(machine), wanted)
	if err != nil {
		return err
	}
	if *list {
		for _, r := range chosen {
			fmt.Fprintf(out, "%-9s %s\n", r.Name, r.What)
		}
		return nil
	}
	b, err := NewBench(cfg, variants())
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := b.Close(); err == nil {
			err = closeErr
		}
	}()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	run := Run{Time: time.Now().UTC(), Rotations: cfg.Rotations, SlotMS: cfg.Slot.Milliseconds(), Family: cfg.Family}
	bad := 0
	fmt.Fprintf(errOut, "kernel %s, %d ns per system call, load %s\n", machine.Kernel, machine.SyscallNS, loadAverage())
	err = b.Run(ctx, chosen, func(l Line) {
		l.print(out)
		run.Lines = append(run.Lines, l)
		if !l.Met || !l.Valid {
			bad++
		}
	})
	if err != nil {
		return err
	}
	machine.Load = loadAverage()
	run.Machine, run.Programs = machine, b.programs
	if *result != "" {
		if err := save(*result, run); err != nil {
			return err
		}
	}
	if *check && bad > 0 {
		return fmt.Errorf("%d of %d lines are void or miss their goal", bad, len(run.Lines))
	}
	return nil
}
