// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shortDir is a directory whose path leaves room for a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "weft")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestListen_TakesOverWhatACrashLeft(t *testing.T) {
	path := filepath.Join(shortDir(t), "sub", "agent.sock")
	first, err := listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("socket: %v %v", info.Mode(), err)
	}
	var running *RunningError
	if _, err := listen(t.Context(), path); !errors.As(err, &running) {
		t.Errorf("second one: got %v, want a RunningError", err)
	}
	first.Listener.Close() // as a crash: the file stays
	first.lock.Close()
	second, err := listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.release(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after close: %v", err)
	}
}

func TestListen_RefusesUntilTheFirstIsDone(t *testing.T) {
	path := filepath.Join(shortDir(t), "agent.sock")
	first, err := listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil { // as at the beginning of the end: it does not answer any more
		t.Error(err)
	}
	var running *RunningError
	if _, err := listen(t.Context(), path); !errors.As(err, &running) {
		t.Errorf("while the first ends: got %v, want a RunningError", err)
	}
	if err := first.release(); err != nil {
		t.Error(err)
	}
	second, err := listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.release()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the newcomer's socket: %v", err)
	}
}

func TestListen_LeavesOtherFilesAlone(t *testing.T) {
	path := filepath.Join(shortDir(t), "agent.sock")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(t.Context(), path); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("got %v", err)
	}
	if _, err := listen(t.Context(), path+"/x"); err == nil {
		t.Error("made a socket below a file")
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("somebody listens")
	}
}
