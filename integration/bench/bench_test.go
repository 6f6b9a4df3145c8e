// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/weft-net/weft/internal/netns"
)

// TestMain lets the test binary be its own worker, as the command is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == workerArg {
		if err := runWorker(os.Args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// quick measures next to nothing: these tests are about the harness, not about numbers.
func quick(family int) Config {
	return Config{Rotations: 5, Slot: 2 * time.Millisecond, CPU: 0, Family: family}
}

// nothingLeft checks that no namespace of this process remains.
func nothingLeft(t *testing.T) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(netns.Dir, fmt.Sprintf("wb%d-*", os.Getpid())))
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("namespaces left behind: %v", left)
	}
}

func TestBench_ControlsWork(t *testing.T) {
	netns.RequireRoot(t)
	for _, family := range []int{4, 6} {
		t.Run(fmt.Sprintf("family-%d", family), func(t *testing.T) {
			var rows []Row
			for _, r := range rowsFor(t, "controls") {
				r.Controls = nil // the numbers of such short slots say nothing
				rows = append(rows, r)
			}
			cfg := quick(family)
			cfg.Programs = true
			b, err := NewBench(cfg, variants())
			if err != nil {
				t.Fatal(err)
			}
			defer nothingLeft(t)
			defer b.Close()
			lines := 0
			err = b.Run(t.Context(), rows, func(l Line) {
				lines++
				if !l.Valid || l.Ratio <= 0 || l.CPU <= 0 {
					t.Errorf("%+v", l)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if want := len(rows[0].Ratios); lines != want {
				t.Errorf("got %d lines, want %d", lines, want)
			}
			if len(b.programs) == 0 {
				t.Error("no program was timed")
			}
		})
	}
}

func rowsFor(t *testing.T, names ...string) []Row {
	t.Helper()
	chosen, err := choose(rows(Machine{}), names)
	if err != nil {
		t.Fatal(err)
	}
	return chosen
}

func TestBench_BrokenVariantIsVoid(t *testing.T) {
	netns.RequireRoot(t)
	all := []Variant{
		{Veth, buildVeth},
		{"unbuildable", func(*World) (Path, error) { return Path{}, errors.New("boom") }},
		// Packets are carried by somebody else than the one who is measured.
		{"bypassed", func(w *World) (Path, error) {
			p, err := buildVeth(w)
			p.Check = func() error { return errors.New("nobody came by") }
			return p, err
		}},
		// Nothing between the pods. A datagram has no retries that would take long.
		{"silent", func(w *World) (Path, error) {
			a, b, err := w.newPair()
			if err != nil {
				return Path{}, err
			}
			if err := a.NS.SetForwarding(false); err != nil {
				return Path{}, err
			}
			return between(a.Pods[0], b.Pods[0]), nil
		}},
	}
	row := Row{Name: "X", Ratios: []Ratio{
		{Workload: UDPRR, Of: "unbuildable", To: Veth},
		{Workload: UDPRR, Of: "bypassed", To: Veth},
		{Workload: UDPRR, Of: "unknown", To: Veth},
		{Workload: UDPRR, Of: "silent", To: Veth},
		{Workload: UDPRR, Of: Veth, To: Veth},
	}}
	b, err := NewBench(quick(4), all)
	if err != nil {
		t.Fatal(err)
	}
	defer nothingLeft(t)
	defer b.Close()
	var got []string
	err = b.Run(t.Context(), []Row{row}, func(l Line) {
		why, _, _ := strings.Cut(l.Why, "\n")
		got = append(got, fmt.Sprintf("%v %s", l.Valid, why))
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"false unbuildable: build: boom",
		"false bypassed: nobody came by",
		"false unknown: build: no such variant",
		"false silent: read: resource temporarily unavailable",
		"true ",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestBench_EndsWithContext(t *testing.T) {
	netns.RequireRoot(t)
	cfg := quick(4)
	cfg.Rotations = 1 << 20
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	rows := rowsFor(t, "controls")
	b, err := NewBench(cfg, []Variant{{Veth, func(w *World) (Path, error) {
		p, err := buildVeth(w)
		slots := 0
		p.BeforeSlot = func(Workload) error {
			if slots++; slots == 10 {
				cancel()
			}
			return nil
		}
		return p, err
	}}})
	if err != nil {
		t.Fatal(err)
	}
	defer nothingLeft(t)
	defer b.Close()
	if err := b.Run(ctx, rows, func(Line) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestCommand(t *testing.T) {
	for _, tt := range []struct {
		name, args, out, err string
	}{
		{"list", "-list -rows D1,D3", "D1        native", ""},
		{"unknown-row", "-rows D1,nope", "", `no row "nope"`},
		{"few-rotations", "-rotations 2", "", "2 rotations: at least 5 are needed"},
		{"bad-family", "-family 5", "", "family 5: 4 or 6"},
		{"bad-slot", "-slot 1us", "", "slot of 1µs: at least 1 ms is needed"},
		{"bad-flag", "-nope", "", "flag provided but not defined: -nope"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			err := command(t.Context(), strings.Fields(tt.args), &out, &errOut)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if d := cmp.Diff(tt.err, got); d != "" {
				t.Errorf("error (-want +got):\n%s", d)
			}
			if !strings.HasPrefix(out.String(), tt.out) {
				t.Errorf("got %q, want it to begin with %q", out.String(), tt.out)
			}
		})
	}
}

func TestCommand_Saves(t *testing.T) {
	netns.RequireRoot(t)
	path := filepath.Join(t.TempDir(), "build", "bench.json")
	args := []string{"-rows", "node", "-rotations", "5", "-slot", "1ms", "-cpu", "0", "-o", path}
	var out, errOut bytes.Buffer
	for range 2 {
		if err := command(t.Context(), args, &out, &errOut); err != nil {
			t.Fatal(err)
		}
	}
	nothingLeft(t)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var runs []Run
	if err := json.Unmarshal(b, &runs); err != nil {
		t.Fatal(err)
	}
	printed := strings.Count(out.String(), "\n")
	if len(runs) != 2 || len(runs[0].Lines)+len(runs[1].Lines) != printed || printed == 0 {
		t.Errorf("%d runs saved, %d lines printed:\n%s", len(runs), printed, b)
	}
	if runs[0].Machine.SyscallNS == 0 || runs[0].Machine.Kernel == "" || runs[0].Machine.Load == "" {
		t.Errorf("the machine is not described: %+v", runs[0].Machine)
	}
	if err := os.WriteFile(path, []byte("{broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := save(path, runs[0]); err == nil {
		t.Error("a broken result file was overwritten")
	}
}
