// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/netns"
)

// downTimeout is how long processes may take to die and namespaces to go.
const downTimeout = 10 * time.Second

// Down removes everything of a lab: processes, namespaces with their links, the bpf file system
// with its pins, and the directory. It finds them by name and not by what was written down, so it
// works also after a launcher was killed half-way; without a lab it does nothing. It refuses a lab that
// another command works on, and one that stands in another directory.
func Down(ctx context.Context, name, dir string) error {
	if !labName.MatchString(name) {
		return fmt.Errorf("lab down: name %q is not a lab's", name)
	}
	unlock, err := lockIfThere(ctx, dir, noTurn)
	if err != nil {
		return fmt.Errorf("lab down: %w", err)
	}
	defer unlock()
	mark, err := markOf(dir)
	if err != nil {
		return fmt.Errorf("lab down: %w", err)
	}
	// Where there is a lab it is removed whatever else has its name.
	if mark != name {
		dirs, _, err := elsewhere(name, dir)
		if err != nil {
			return fmt.Errorf("lab down: %w", err)
		}
		if len(dirs) > 0 {
			return fmt.Errorf("lab down: %w", standsIn(name, dirs))
		}
	}
	return remove(ctx, name, dir)
}

// remove is Down for who has the lock.
func remove(ctx context.Context, name, dir string) error {
	if ours, err := claimed(name, dir); err != nil || !ours {
		return errors.Join(fmt.Errorf("lab down: directory %s is not one of lab %s; nothing was removed", dir, name), err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, downTimeout, fmt.Errorf("not within %v", downTimeout))
	defer cancel()
	held := objectsBelow(dir)
	if err := killAll(ctx, name); err != nil {
		return fmt.Errorf("lab down: %w", err)
	}
	names, err := netnsOf(name)
	if err != nil {
		return fmt.Errorf("lab down: %w", err)
	}
	var errs []error
	for _, n := range names {
		ns, err := netns.Open(n)
		if err == nil {
			err = ns.Delete()
		}
		if err != nil {
			// A file that is no namespace any more, after a crash between making and mounting it.
			err = errors.Join(unmount(filepath.Join(netns.Dir, n)), os.Remove(filepath.Join(netns.Dir, n)))
		}
		errs = append(errs, err)
	}
	// By its name too: a mount that is not in the list would keep its programs and maps for good.
	errs = append(errs, unmountBelow(dir), unmount(bpfDir(dir)), os.RemoveAll(dir))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lab down: %w", err)
	}
	if err := waitGone(ctx, name, dir, held); err != nil {
		return fmt.Errorf("lab down: %w", err)
	}
	return nil
}

// stands says whether Down would find anything of the lab.
func stands(name, dir string) bool {
	names, err := netnsOf(name)
	if err != nil || len(names) > 0 {
		return true
	}
	_, err = os.Stat(dir)
	return err == nil
}

// killAll ends the lab's processes. It goes round again because one may have started another
// meanwhile. It kills nothing if it was called from inside the lab.
func killAll(ctx context.Context, name string) error {
	return until(ctx, func() (bool, error) {
		pids, err := processesOf(name)
		if err != nil {
			return false, err
		}
		if parent := os.Getppid(); slices.Contains(pids, parent) {
			return false, fmt.Errorf("pid %d runs inside the lab and started this command; leave it first", parent)
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return false, fmt.Errorf("kill pid %d: %w", pid, err)
			}
		}
		return len(pids) == 0, nil
	})
}

// mountsBelow lists the mounts below a directory, the deepest last.
func mountsBelow(dir string) ([]string, error) {
	// How the kernel writes what would end a field or a line (proc_pid_mountinfo(5)).
	mountPath := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var mounts []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		if at := mountPath.Replace(f[4]); strings.HasPrefix(at, dir+"/") {
			mounts = append(mounts, at)
		}
	}
	return mounts, nil
}

func unmountBelow(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range slices.Backward(mounts) {
		errs = append(errs, unmount(m))
	}
	return errors.Join(errs...)
}

func unmount(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}
