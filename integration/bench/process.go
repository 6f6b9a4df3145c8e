// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/weft-net/weft/internal/netns"
)

// process is a worker as its parent sees it.
type process struct {
	cmd    *netns.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr bytes.Buffer
}

// startProcess starts a worker in a namespace and waits until it is ready.
func startProcess(ctx context.Context, ns *netns.NS, role string, cpu int, w Workload, at netip.AddrPort, spread int) (_ *process, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s of %s in %s: %w", role, w, ns.Name(), err)
		}
	}()
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: ns.Command(ctx, exe, workerArg, role, strconv.Itoa(cpu), string(w), at.String(), strconv.Itoa(spread))}
	// Collections and preemption signals would show in the latencies; a slot allocates nothing.
	// The race detector, if it is on, would wait a second at the end of each.
	p.cmd.Env = append(os.Environ(), "GOGC=off", "GODEBUG=asyncpreemptoff=1", "GOMAXPROCS=2", "GORACE=atexit_sleep_ms=0")
	p.cmd.Stderr = &p.stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.stdout = bufio.NewReader(stdout)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := p.stdout.ReadString('\n')
	if err != nil || line != "ready\n" {
		return nil, errors.Join(fmt.Errorf("not ready: %q: %w", line, err), p.stop())
	}
	return p, nil
}

// stop ends the worker and waits for it.
func (p *process) stop() error {
	p.stdin.Close()
	// A server sits in a system call; the end of its input ends it, and this is for the case that
	// it does not.
	timer := time.AfterFunc(5*time.Second, func() { p.cmd.Process.Kill() })
	defer timer.Stop()
	err := p.cmd.Wait()
	if msg := strings.TrimSpace(p.stderr.String()); msg != "" {
		return fmt.Errorf("%w: %s", err, msg)
	}
	return err
}

// slot has a client run for a while.
func (p *process) slot(d time.Duration) (Slot, error) {
	var s Slot
	// Sockets of the connecting workload have no timeouts of their own: to set them would cost
	// more than a program run does.
	timer := time.AfterFunc(d+15*time.Second, func() { p.cmd.Process.Kill() })
	defer timer.Stop()
	if _, err := fmt.Fprintln(p.stdin, int64(d)); err != nil {
		return s, fmt.Errorf("ask for a slot: %w", err)
	}
	line, err := p.stdout.ReadBytes('\n')
	if err != nil {
		return s, fmt.Errorf("read a slot: %w", err)
	}
	if err := json.Unmarshal(line, &s); err != nil {
		return s, fmt.Errorf("read a slot: %w", err)
	}
	return s, nil
}

// cpuTime is the processor time of all threads of the worker so far, in nanoseconds. Work done in
// interrupt context on behalf of a packet counts for the thread it interrupts, which in a pinned
// pair is nearly always the pair itself.
func (p *process) cpuTime() (int64, error) { return cpuTime(p.cmd.Process.Pid) }

// cpuTime is the processor time of all threads of a process so far, in nanoseconds.
func cpuTime(pid int) (int64, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("processor time of %d: no threads", pid)
	}
	var sum int64
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that ended meanwhile
		}
		run, _, _ := strings.Cut(string(b), " ")
		ns, err := strconv.ParseInt(run, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("processor time: %w", err)
		}
		sum += ns
	}
	return sum, nil
}

// softirqThread finds the kernel thread that does a processor's network work when there is too
// much of it to be done on the side.
func softirqThread(cpu int) (int, error) {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return 0, err
	}
	want := fmt.Sprintf("ksoftirqd/%d\n", cpu)
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && string(b) == want {
			return strconv.Atoi(filepath.Base(filepath.Dir(name)))
		}
	}
	return 0, fmt.Errorf("no kernel thread ksoftirqd/%d", cpu)
}
