// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Workload is what a pair of processes does.
type Workload string

// The workloads. An operation of the first three is timed; of a stream only bytes per
// processor-second mean anything.
const (
	TCPRR  Workload = "tcp-rr"  // one byte there and back on one connection
	TCPCRR Workload = "tcp-crr" // connect, one byte there and back, close
	UDPRR  Workload = "udp-rr"  // one byte there and back
	Stream Workload = "stream"  // as many bytes as go through, one way
)

// workerArg as the first argument makes the program one end of a measurement:
//
//	bench worker server <cpu> <workload> <address:port>
//	bench worker client <cpu> <workload> <address:port> <number of addresses>
//	bench worker reach <reachTask as JSON>
//	bench worker etcd <directory>
//	bench worker serve <serveTask as JSON>
//	bench worker watch <watchTask as JSON>
//	bench worker remotes <remotesTask as JSON>
//	bench worker copies <copyTask as JSON>
//
// The last five end with their standard input, from which some read commands (see runStore, runServe and
// runWatch). The first two print a line when ready and end when their standard input does. A client runs a
// slot for each line with a number of nanoseconds, and answers with a Slot in JSON.
const workerArg = "worker"

// runWorker is the whole life of a worker.
func runWorker(args []string, in io.Reader, out io.Writer) error {
	if len(args) == 2 {
		switch args[0] {
		case "reach":
			return runReach(context.Background(), args[1], out)
		case "etcd":
			return runStore(context.Background(), args[1], in, out)
		case "serve":
			return runServe(context.Background(), args[1], in, out)
		case "remotes":
			return runRemotes(context.Background(), args[1], in, out)
		case "copies":
			return runCopies(context.Background(), args[1], in, out)
		case "watch":
			return runWatch(context.Background(), args[1], in, out)
		}
	}
	if len(args) < 4 {
		return fmt.Errorf("worker: %d arguments, want 4 or 5", len(args))
	}
	cpu, err := strconv.Atoi(args[1])
	if err != nil {
		return fmt.Errorf("worker: cpu: %w", err)
	}
	at, err := netip.ParseAddrPort(args[3])
	if err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	runtime.LockOSThread()
	if err := pin(cpu); err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	w := Workload(args[2])
	if args[0] == "server" {
		// The server's thread never leaves its system calls; this one ends the process when the
		// parent is gone, however it went.
		go func() {
			io.Copy(io.Discard, in)
			os.Exit(0)
		}()
		return serve(w, at, func() { fmt.Fprintln(out, "ready") })
	}
	spread := 1
	if len(args) > 4 {
		if spread, err = strconv.Atoi(args[4]); err != nil {
			return fmt.Errorf("worker: spread: %w", err)
		}
	}
	c := newClient(w, at, spread)
	defer c.disconnect()
	fmt.Fprintln(out, "ready")
	lines := bufio.NewScanner(in)
	answers := json.NewEncoder(out)
	for lines.Scan() {
		ns, err := strconv.ParseInt(lines.Text(), 10, 64)
		if err != nil {
			return fmt.Errorf("worker: slot: %w", err)
		}
		if err := answers.Encode(c.slot(time.Duration(ns))); err != nil {
			return fmt.Errorf("worker: answer: %w", err)
		}
	}
	return lines.Err()
}

// pin binds all threads of the process to one processor, at the highest priority that the normal
// scheduler has. A real-time class would do more, but moves the pair to different processors.
func pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil {
			return fmt.Errorf("pin to processor %d: %w", cpu, err)
		}
		// Threads made later inherit both from the one that makes them.
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, -20); err != nil {
			return fmt.Errorf("raise priority: %w", err)
		}
	}
	return nil
}
