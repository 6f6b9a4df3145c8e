// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/netns"
)

// Variables by which a test starts its own binary as one of children.
const (
	childRole = "WEFT_TEST_ROLE"
	childName = "WEFT_TEST_NAME" // of the lab
	childDir  = "WEFT_TEST_DIR"  // of the lab
)

// children are what the tests start as processes of their own. They end when they are killed, or by
// themselves.
func children() map[string]func() {
	return map[string]func(){
		"leaderless": leaderless,
		"down":       downAndSay,
		"launcher":   launch,
	}
}

// leaderless goes on without its first thread.
func leaderless() {
	leave := func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// Of this thread only; the library's exit is of all.
			unix.Syscall(unix.SYS_EXIT, 0, 0, 0) //nolint:errcheck // it does not return
		}
	}
	// Each holds the thread that it is on, so that one of them comes to be on the first.
	for range 64 {
		go func() {
			leave()
			select {}
		}()
	}
	leave()
	for {
		// The only error is that of a signal that came.
		_ = unix.Pause()
	}
}

// downAndSay takes the lab down and says how that went.
func downAndSay() {
	fmt.Println("down:", Down(context.Background(), os.Getenv(childName), os.Getenv(childDir)))
}

// launch starts a program in the lab with the lab's lock, says so, and keeps the lock.
func launch() {
	l := &Lab{Name: os.Getenv(childName), Dir: os.Getenv(childDir), Weft: "/bin/sleep"}
	unlock, err := lock(context.Background(), l.Dir, noTurn)
	if err == nil {
		defer unlock()
		err = l.start(&Process{Netns: prefix(l.Name) + "n", Log: filepath.Join(l.Dir, "log")}, "600")
	}
	fmt.Println("launched:", err)
	for {
		// The only error is that of a signal that came.
		_ = unix.Pause()
	}
}

// childLab is a lab of one namespace without any process, whose programs are those of a path, or this
// test's own binary for "". Children know it.
func childLab(t *testing.T, name, role, weft string) *Lab {
	netns.RequireRoot(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if weft == "" {
		weft = self
	}
	l := &Lab{Name: name, Dir: filepath.Join(t.TempDir(), "lab"), Weft: weft, WAN: prefix(name) + "n"}
	if err := claim(name, l.Dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Down(context.Background(), name, l.Dir); err != nil {
			t.Error(err)
		}
	})
	ns, err := netns.New(l.WAN)
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
	t.Setenv(childRole, role)
	t.Setenv(childName, name)
	t.Setenv(childDir, l.Dir)
	return l
}

// startIn starts a program in the lab.
func startIn(t *testing.T, l *Lab, args ...string) *Process {
	t.Helper()
	p := &Process{Netns: l.WAN, Log: filepath.Join(l.Dir, fmt.Sprintf("log%d", len(args)))}
	if err := l.start(p, args...); err != nil {
		t.Fatal(err)
	}
	return p
}
