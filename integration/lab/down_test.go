// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Threads that are left of a process run on although the one by which the process is known has ended.
func TestDown_EndsAProcessWithoutItsFirstThread(t *testing.T) {
	l := childLab(t, "tfirst", "leaderless", "")
	p := startIn(t, l)
	if err := until(t.Context(), func() (bool, error) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
		return strings.Contains(string(b), ") Z "), err
	}); err != nil {
		t.Fatal(err)
	}
	pids, err := processesOf(l.Name)
	if err != nil || len(pids) != 1 || pids[0] != p.PID {
		t.Errorf("found %v, %v; want %d", pids, err, p.PID)
	}
	if err := Down(t.Context(), l.Name, l.Dir); err != nil {
		t.Error(err)
	}
	if p.alive() {
		t.Error("alive after down")
	}
}

func TestDown_FromInsideKillsNothing(t *testing.T) {
	l := childLab(t, "tinside", "down", "/bin/sh")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// What runs before the one that calls, and would be killed first.
	before := startIn(t, l, "-c", "sleep 600")
	shell := startIn(t, l, "-c", `"$0"; sleep 600`, self)
	said := ""
	if err := until(t.Context(), func() (bool, error) {
		b, err := os.ReadFile(shell.Log)
		said = string(b)
		return strings.Contains(said, "down:"), err
	}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said, "leave it first") {
		t.Errorf("it says %q, want to be told to leave", said)
	}
	if !before.alive() || !shell.alive() {
		t.Errorf("alive: %v and %v, want both", before.alive(), shell.alive())
	}
}
