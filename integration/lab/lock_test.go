// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// saved is a lab of which only the directory stands.
func saved(t *testing.T, name string) *Lab {
	t.Helper()
	o := DefaultOptions()
	o.Name, o.Dir = name, filepath.Join(t.TempDir(), "lab")
	l := plan(o)
	if err := errors.Join(claim(name, l.Dir), l.save()); err != nil {
		t.Fatal(err)
	}
	return l
}

// interrupted is a context that ended because a user did not want to wait.
func interrupted(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestUpdate_WaitsForItsTurn(t *testing.T) {
	l := saved(t, "tturn")
	unlock, err := lock(t.Context(), l.Dir, turnTimeout)
	if err != nil {
		t.Fatal(err)
	}
	nothing := func(*Lab) error { return nil }
	err = update(interrupted(t), l.Dir, nothing)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "another 'weft lab' command works on") {
		t.Errorf("interrupted in its wait: %v", err)
	}
	done := make(chan error)
	go func() { done <- update(t.Context(), l.Dir, nothing) }()
	unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := update(t.Context(), l.Dir+"-none", nothing); !errors.Is(err, ErrNotUp) {
		t.Errorf("without a lab: %v, want %v", err, ErrNotUp)
	}
}

// Who waited while the lab was removed and another came in its place works on that one, and holds its lock.
func TestLock_IsOfWhatStandsThere(t *testing.T) {
	l := saved(t, "tagain")
	unlock, err := lock(t.Context(), l.Dir, turnTimeout)
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.Open(l.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := os.RemoveAll(l.Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := lock(t.Context(), l.Dir, turnTimeout); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("lock of what was removed: %v, want %v", err, fs.ErrNotExist)
	}
	if err := claim(l.Name, l.Dir); err != nil {
		t.Fatal(err)
	}
	if isAt(old, l.Dir) {
		t.Error("the directory that was removed counts as the new one")
	}
	again, err := lock(t.Context(), l.Dir, turnTimeout)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	if _, err := lock(interrupted(t), l.Dir, turnTimeout); err == nil {
		t.Error("who had the old one gave the new one away")
	}
	again()
}

func TestKill_SaysWhatDidNotEnd(t *testing.T) {
	l := childLab(t, "tlives", "", "/bin/sleep")
	p := startIn(t, l, "600")
	if err := p.signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	err := p.end(interrupted(t), syscall.SIGTERM)
	if err == nil || !strings.Contains(err.Error(), "did not end after SIGTERM") {
		t.Errorf("a stopped process that should end: %v", err)
	}
	if p.PID == 0 {
		t.Error("it is forgotten although it runs")
	}
	if err := p.end(t.Context(), syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

// What a launcher holds that was killed is free, and what it started is found.
func TestDown_WaitsForNobodyWhoWorks(t *testing.T) {
	l := childLab(t, "tlaunch", "launcher", "")
	launcher := exec.Command(l.Weft)
	out, err := launcher.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := launcher.Start(); err != nil {
		t.Fatal(err)
	}
	said, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || said != "launched: <nil>\n" {
		t.Errorf("the launcher says %q, %v", said, err)
	}
	if err := Down(t.Context(), l.Name, l.Dir); err == nil || !strings.Contains(err.Error(), "another 'weft lab' command works on") {
		t.Errorf("down while a launcher works: %v", err)
	}
	pids, err := processesOf(l.Name)
	if err != nil || len(pids) != 1 {
		t.Errorf("processes %v, %v, want one", pids, err)
	}
	if err := launcher.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = launcher.Wait() // says that it was killed
	if err := Down(t.Context(), l.Name, l.Dir); err != nil {
		t.Error(err)
	}
	if left, err := Traces(l.Name, l.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSave_MakesNothingOfWhatWasRemoved(t *testing.T) {
	l := saved(t, "tsave")
	err := update(t.Context(), l.Dir, func(l *Lab) error { return os.RemoveAll(l.Dir) })
	if err == nil || !strings.Contains(err.Error(), "was removed meanwhile") {
		t.Errorf("a change of a lab that was removed: %v", err)
	}
	if _, err := os.Stat(l.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is there again: %v", err)
	}
	if err := claim("tother", l.Dir); err != nil {
		t.Fatal(err)
	}
	if err := l.save(); err == nil {
		t.Error("saved to the directory of another lab")
	}
}
