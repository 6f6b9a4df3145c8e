// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package cgroup gives a test a cgroup of its own, to which it can attach programs that nobody else
// on the machine meets. It is for tests alone, of any package.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/netns"
)

// Join makes a cgroup below the one of the process and puts the process into it until the test ends;
// it returns the path. Sockets belong to the cgroup in which they are made, for good. A process is in
// one cgroup, so tests that call it must not be parallel.
func Join(t testing.TB) string {
	t.Helper()
	netns.RequireRoot(t)
	root := filepath.Join(t.TempDir(), "cgroup2")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", root, "cgroup2", 0, ""); err != nil {
		t.Fatalf("mount cgroup2: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount cgroup2: %v", err)
		}
	})
	own, err := membership()
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(root, own)
	made, err := os.MkdirTemp(home, "weft-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := enter(home); err != nil {
			t.Error(err)
		}
		// Files of the directory are no obstacle, processes are. os.Remove calls rmdir.
		if err := os.Remove(made); err != nil {
			t.Error(err)
		}
	})
	if err := enter(made); err != nil {
		t.Fatal(err)
	}
	return made
}

// membership is the path of the process's cgroup below the root of the hierarchy.
func membership() (string, error) {
	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("own cgroup: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if own, ok := strings.CutPrefix(lines.Text(), "0::"); ok {
			return own, nil
		}
	}
	return "", errors.New("own cgroup: the kernel names none of version 2")
}

// enter moves the process, with all its threads.
func enter(dir string) error {
	err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
	if err != nil {
		return fmt.Errorf("enter cgroup: %w", err)
	}
	return nil
}
