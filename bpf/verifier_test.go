// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/netns"
)

var update = flag.Bool("update", false, "write what the verifier says into testdata")

var processed = regexp.MustCompile(`processed (\d+) insns .* total_states (\d+)`)

// TestVerifier_Golden loads every program with every combination of the switches, so that a change
// that makes them harder to check shows up as a difference. The counts are one kernel's; on another
// one the programs only have to load.
func TestVerifier_Golden(t *testing.T) {
	netns.RequireRoot(t)
	const golden = "testdata/verifier.txt"
	// The booleans of the configuration.
	switches := []struct {
		name string
		set  func(*Config, bool)
	}{
		{"tunnel-over-ipv4", func(c *Config, on bool) { c.TunnelOverIPv4 = on }},
		{"tunnel-over-ipv6", func(c *Config, on bool) { c.TunnelOverIPv6 = on }},
		{"events", func(c *Config, on bool) { c.ReportEvents = on }},
	}
	var got bytes.Buffer
	release := kernelSeries(t)
	fmt.Fprintf(&got, "Linux %s: instructions checked and states kept by the verifier; instructions of the program with its functions\n", release)
	for mask := range 1 << len(switches) {
		cfg := small()
		var on []string
		for i, s := range switches {
			s.set(&cfg, mask&(1<<i) != 0)
			if mask&(1<<i) != 0 {
				on = append(on, s.name)
			}
		}
		fmt.Fprintf(&got, "\nwith %s\n", strings.Join(append(on, "nothing")[:max(len(on), 1)], ", "))
		spec, err := Spec(cfg)
		must(t, err)
		collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}})
		must(t, err)
		writeCounts(t, &got, spec, collection)
		collection.Close()
	}
	socketCounts(t, &got)
	if *update {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(golden, got.Bytes(), 0o644))
		return
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if first, _, _ := strings.Cut(string(want), ":"); first != "Linux "+release {
		t.Skipf("the recorded counts are those of %s, this is Linux %s: all programs load", first, release)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s (-want +got), if it is meant run with -update:\n%s", golden, diff)
	}
}

// writeCounts writes what the verifier did with each program of a collection.
func writeCounts(t *testing.T, to *bytes.Buffer, spec *ebpf.CollectionSpec, collection *ebpf.Collection) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(collection.Programs)) {
		m := processed.FindStringSubmatch(collection.Programs[name].VerifierLog)
		if m == nil {
			t.Fatalf("%s: the verifier does not say what it did:\n%s", name, collection.Programs[name].VerifierLog)
		}
		fmt.Fprintf(to, "  %-17s %6s insns %5s states %5d long\n", name, m[1], m[2], len(spec.Programs[name].Instructions))
	}
}

// socketCounts does the same for the programs at sockets, which have no switches.
func socketCounts(t *testing.T, to *bytes.Buffer) {
	t.Helper()
	spec, err := SocketSpec(small())
	must(t, err)
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}})
	must(t, err)
	defer collection.Close()
	fmt.Fprintf(to, "\nat sockets\n")
	writeCounts(t, to, spec, collection)
}

// kernelSeries is the running kernel's version without the part that fixes change.
func kernelSeries(t *testing.T) string {
	t.Helper()
	var name unix.Utsname
	must(t, unix.Uname(&name))
	var major, minor int
	_, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor)
	must(t, err)
	return fmt.Sprintf("%d.%d", major, minor)
}
