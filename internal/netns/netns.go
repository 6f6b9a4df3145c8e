// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package netns makes, enters and removes named network namespaces: the nodes, pods and wires of
// tests, of benchmarks and of the lab. A namespace made here is the same thing that "ip netns"
// makes (a bind mount below /run/netns), so that people can look into it with their usual tools.
//
// It is not for the datapath of a real node, whose devices and routes belong to package datapath.
// It is a leaf: everybody may import it, it imports nothing of ours.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Dir is where named namespaces live.
const Dir = "/run/netns"

// NS is one network namespace that this process holds open.
//
// The open descriptor keeps the namespace with its devices and BPF links alive even after its name
// is gone: whoever opened an NS closes or deletes it. An NS may be used from many goroutines.
type NS struct {
	name string // empty if it was opened by path
	path string

	mu   sync.Mutex
	file *os.File // nil once closed
}

// New makes a namespace with a name, prepared the way weft's tests need it: loopback up, IPv6
// addresses usable at once (no duplicate detection), no ICMP redirects, no reverse path filter, no
// netfilter on bridges. It does not forward; see [NS.SetForwarding].
//
// A name that exists is an error for which errors.Is(err, fs.ErrExist) holds. If New fails, nothing
// is left behind.
func New(name string) (_ *NS, err error) {
	if name == "" || name == "." || name == ".." || name != filepath.Base(name) {
		return nil, fmt.Errorf("new netns %q: not a file name", name)
	}
	if err := makeDir(); err != nil {
		return nil, fmt.Errorf("new netns %s: %w", name, err)
	}
	path := filepath.Join(Dir, name)
	target, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return nil, fmt.Errorf("new netns %s: %w", name, err)
	}
	target.Close()
	defer func() {
		if err != nil {
			removePath(path)
		}
	}()

	if err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount(threadPath, path, "none", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind mount: %w", err)
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("new netns %s: %w", name, err)
	}

	ns, err := Open(name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			ns.Close()
		}
	}()
	if err := ns.prepare(); err != nil {
		return nil, fmt.Errorf("new netns %s: %w", name, err)
	}
	return ns, nil
}

// Open opens a namespace that has a name.
func Open(name string) (*NS, error) {
	ns, err := OpenPath(filepath.Join(Dir, name))
	if err != nil {
		return nil, err
	}
	ns.name = name
	return ns, nil
}

// OpenPath opens a namespace by the path of its file, for instance /proc/1234/ns/net.
func OpenPath(path string) (*NS, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open netns: %w", err)
	}
	return &NS{path: path, file: f}, nil
}

// Name is the name below [Dir], or empty for a namespace that was opened by its path.
func (n *NS) Name() string { return n.name }

// Path is the path of the namespace's file.
func (n *NS) Path() string { return n.path }

// Fd is the open descriptor, or -1 after Close. It stays valid until Close or Delete.
func (n *NS) Fd() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil {
		return -1
	}
	return int(n.file.Fd())
}

// Close lets go of the namespace without removing it. Closing twice does nothing.
func (n *NS) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil {
		return nil
	}
	err := n.file.Close()
	n.file = nil
	return err
}

// Delete removes every device that can be removed, then the name, and closes n.
//
// Devices go first and by hand because the kernel empties a namespace some time later, in the
// background, and not at all while a process still runs in it; a peer of a veth in another
// namespace is therefore gone when Delete returns. Delete kills nobody. Deleting what is gone
// already is no error.
func (n *NS) Delete() error {
	if n.name == "" {
		return fmt.Errorf("delete netns %s: it has no name", n.path)
	}
	var errs []error
	if n.Fd() >= 0 {
		errs = append(errs, n.deleteLinks())
	}
	errs = append(errs, n.Close(), removePath(n.path))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("delete netns %s: %w", n.name, err)
	}
	return nil
}

// removePath unmounts and removes the file of a namespace. What is gone already is no error.
func removePath(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// makeDir makes Dir a shared mount, as "ip netns" does: without it the removal of a name would not
// reach other mount namespaces, which would then keep the namespace alive.
func makeDir() error {
	if err := os.MkdirAll(Dir, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	// Two processes that do this at once would mount twice.
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", Dir, err)
	}
	err = unix.Mount("", Dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("share %s: %w", Dir, err)
	}
	if err := unix.Mount(Dir, Dir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s: %w", Dir, err)
	}
	if err := unix.Mount("", Dir, "none", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("share %s: %w", Dir, err)
	}
	return nil
}
