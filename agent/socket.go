// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A RunningError says that another agent answers on the socket, or has not ended yet.
type RunningError struct{ Socket string }

func (e *RunningError) Error() string {
	return fmt.Sprintf("socket %s: another agent is running; stop it or use another socket", e.Socket)
}

// listen makes the socket, which only its owner may open. What a crashed agent
// left there is removed; a socket on which somebody answers, or whose lock somebody
// holds, is a *RunningError. The caller calls release once nothing of it runs.
func listen(ctx context.Context, path string) (_ *socket, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	lock, err := lockSocket(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err == nil {
		conn.Close()
		return nil, &RunningError{path}
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("socket: %w", err)
	case info.Mode()&fs.ModeSocket == 0:
		return nil, fmt.Errorf("socket %s: is there and is no socket", path)
	default:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("socket: %w", err)
		}
	}
	// Made under another name and renamed once it is private: between bind and
	// chmod anybody could open it.
	temporary := path + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("socket: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	listener.SetUnlinkOnClose(false)
	defer func() {
		if err != nil {
			listener.Close()
			os.Remove(temporary)
		}
	}()
	if err := os.Chmod(temporary, 0o600); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	return &socket{Listener: listener, path: path, lock: lock}, nil
}

// lockSocket takes the lock beside the socket: an agent that ends does not answer any
// more but still works on the kernel. The file stays, for whoever removed it could
// remove a newcomer's.
func lockSocket(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &RunningError{path}
		}
		return nil, fmt.Errorf("socket: lock %s.lock: %w", path, err)
	}
	return f, nil
}

// socket removes its file when it is closed, and holds its lock until release.
type socket struct {
	net.Listener
	path   string
	lock   *os.File
	once   sync.Once
	closed error // of the first Close
}

// Close may be called again: by then the file can be somebody else's.
func (s *socket) Close() error {
	s.once.Do(func() { s.closed = errors.Join(s.Listener.Close(), os.Remove(s.path)) })
	return s.closed
}

// release closes the socket and lets another agent have it.
func (s *socket) release() error { return errors.Join(s.Close(), s.lock.Close()) }
