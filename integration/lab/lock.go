// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// How long a command waits for another one that works on the same lab.
const (
	// A kill or a start takes startTimeout at most.
	turnTimeout = 2 * startTimeout
	// What builds or removes a lab waits for nobody. This is for the child that a launcher had just made
	// when it was killed: it has the lock until it has become another program.
	noTurn = time.Second
)

// lock takes the lock that every command holds which changes a lab, and returns what gives it back. It is
// one on the directory; of a process that ends, however it ends, the kernel takes it back. It waits
// for another command for as long as it is told, and while ctx lasts. Without the directory the error is
// fs.ErrNotExist.
func lock(ctx context.Context, dir string, patience time.Duration) (unlock func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not within %v", patience))
	defer cancel()
	var held *os.File
	busy := false
	err = until(ctx, func() (bool, error) {
		// Opened anew each time: who had the lock may have removed the directory, and another made it again.
		f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return false, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && isAt(f, dir) {
			held = f
			return true, nil
		}
		busy = errors.Is(err, unix.EWOULDBLOCK)
		f.Close()
		if busy {
			err = nil
		}
		return false, err
	})
	switch {
	case err == nil:
	case busy:
		return nil, fmt.Errorf("another 'weft lab' command works on %s: wait for its end, or end it: %w", dir, err)
	default:
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() {
		// Not only by closing: a child that was just made has the file too, for a moment.
		_ = unix.Flock(int(held.Fd()), unix.LOCK_UN)
		held.Close()
	}, nil
}

// lockIfThere is lock where a directory that is not there is none that anybody works on.
func lockIfThere(ctx context.Context, dir string, patience time.Duration) (unlock func(), err error) {
	unlock, err = lock(ctx, dir, patience)
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	return unlock, err
}

// isAt says whether a file that was opened is still the one of that name.
func isAt(f *os.File, name string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(name)
	return err == nil && os.SameFile(opened, there)
}
