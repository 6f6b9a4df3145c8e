// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/netns"
)

// envLab marks the processes of a lab, so that they are found without any file.
const envLab = "WEFT_LAB="

// poll is how often a condition of another process is looked at while it is waited for.
const poll = 20 * time.Millisecond

// start runs a program of the lab in p's namespace, detached from this process: it goes on when
// this process ends, and its output goes to p.Log.
func (l *Lab) start(p *Process, args ...string) error {
	ns, err := netns.Open(p.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := os.MkdirAll(filepath.Dir(p.Log), 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := ns.Command(context.Background(), l.Weft, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = l.Dir
	cmd.Env = append(environ(), envLab+l.Name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s in %s: %w", strings.Join(args, " "), p.Netns, err)
	}
	p.PID = cmd.Process.Pid
	p.Start, _ = startTime(p.PID)
	return cmd.Process.Release()
}

// run runs a program of the lab to its end in a namespace.
func (l *Lab) run(ctx context.Context, netnsName string, args ...string) error {
	said, complaint, err := l.pipe(ctx, netnsName, "", args...)
	if err != nil {
		return fmt.Errorf("weft %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(complaint+said))
	}
	return nil
}

// pipe runs a program of the lab to its end in a namespace, with an input, and returns what it said and
// what it complained of.
func (l *Lab) pipe(ctx context.Context, netnsName, input string, args ...string) (said, complaint string, err error) {
	ns, err := netns.Open(netnsName)
	if err != nil {
		return "", "", err
	}
	defer ns.Close()
	cmd := ns.Command(ctx, l.Weft, args...)
	cmd.Env = append(environ(), envLab+l.Name)
	var out, bad strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &bad
	err = cmd.Run()
	return out.String(), bad.String(), err
}

// alive says whether the process still runs. A number that another process has by now does not
// count, and neither does one that ended and waits to be reaped.
func (p Process) alive() bool {
	if p.PID == 0 {
		return false
	}
	start, err := startTime(p.PID)
	return err == nil && start == p.Start
}

// signal sends the process a signal, if it still runs.
func (p Process) signal(s syscall.Signal) error {
	if !p.alive() {
		return nil
	}
	if err := syscall.Kill(p.PID, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %s to pid %d: %w", s, p.PID, err)
	}
	return nil
}

// end kills the process and waits until it is gone.
func (p *Process) end(ctx context.Context, s syscall.Signal) error {
	if err := p.signal(s); err != nil {
		return err
	}
	if err := until(ctx, func() (bool, error) { return !p.alive(), nil }); err != nil {
		return fmt.Errorf("pid %d did not end after %s: %w", p.PID, unix.SignalName(s), err)
	}
	p.PID, p.Start = 0, 0
	return nil
}

// startTime reads when a process started, in clock ticks since boot (proc(5), field 22). A zombie
// is no process any more; if it is our child it is reaped. One of which other threads are left (field 20)
// is: its sockets are open until the last thread has ended.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses and may contain anything.
	_, rest, ok := strings.Cut(string(b[max(0, strings.LastIndexByte(string(b), ')')):]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return 0, fmt.Errorf("stat of pid %d: not understood", pid)
	}
	if fields[0] == "Z" && fields[17] == "1" {
		syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		return 0, fs.ErrNotExist
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// processesOf finds every process that belongs to a lab: by the namespace it runs in, or by its
// environment. It finds also what a launcher that was killed could not write down.
func processesOf(name string) ([]int, error) {
	inodes := map[uint64]bool{}
	names, err := netnsOf(name)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(netns.Dir, n), &st); err == nil {
			inodes[st.Ino] = true
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if _, err := startTime(pid); err != nil {
			continue
		}
		if belongs(pid, name, inodes) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// belongs says whether a process runs in one of the namespaces of a lab, or has its mark in the environment.
func belongs(pid int, name string, inodes map[uint64]bool) bool {
	views := []string{fmt.Sprintf("/proc/%d", pid)}
	var st unix.Stat_t
	if err := unix.Stat(views[0]+"/ns/net", &st); errors.Is(err, unix.ENOENT) {
		// The first thread has ended and has neither any more. Others that are left have both.
		// The only error is that of a pattern.
		views, _ = filepath.Glob(views[0] + "/task/*")
	}
	for _, v := range views {
		if unix.Stat(v+"/ns/net", &st) == nil && inodes[st.Ino] {
			return true
		}
		env, err := os.ReadFile(v + "/environ")
		if err == nil && slices.Contains(strings.Split(string(env), "\x00"), envLab+name) {
			return true
		}
	}
	return false
}

// netnsOf lists the namespaces of a lab by their names.
func netnsOf(name string) ([]string, error) {
	entries, err := os.ReadDir(netns.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix(name)) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// until waits for a condition of something outside this process.
func until(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
