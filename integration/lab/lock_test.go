// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"io/fs"
	"os"
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
