// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// threadPath is the namespace of the calling thread. /proc/self would be that of the main thread.
const threadPath = "/proc/thread-self/ns/net"

// errLeft is what Do returns when its function never returned: runtime.Goexit, which is what
// testing.T.FailNow calls.
var errLeft = errors.New("function ended its goroutine instead of returning")

// Do runs f inside the namespace and returns its error.
//
// f runs on a goroutine of its own that is locked to an operating system thread; goroutines that f
// starts run outside. Sockets and files that f opens stay in the namespace for good. A panic in f
// is raised again in the caller. If the thread cannot return to where it came from it is thrown
// away.
func (n *NS) Do(f func() error) error {
	fd := n.Fd()
	if fd < 0 {
		return fmt.Errorf("enter netns %s: closed", n.path)
	}
	return onThread(func() error {
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter netns %s: %w", n.path, err)
		}
		return f()
	})
}

// onThread runs f on a locked thread and puts the thread back into its namespace afterwards.
func onThread(f func() error) error {
	var (
		done     = make(chan struct{})
		result   = errLeft
		panicked any
	)
	go func() {
		defer close(done)
		runtime.LockOSThread()
		home, err := unix.Open(threadPath, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			result = fmt.Errorf("open own netns: %w", err)
			runtime.UnlockOSThread()
			return
		}
		defer func() {
			panicked = recover()
			// A goroutine that ends while locked takes its thread along: nothing else can then
			// run in the wrong namespace.
			if unix.Setns(home, unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			unix.Close(home)
		}()
		result = f()
	}()
	<-done
	if panicked != nil {
		panic(panicked)
	}
	return result
}
