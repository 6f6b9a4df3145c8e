// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is what the numbers depend on besides the code.
type Machine struct {
	Kernel    string `json:"kernel"`
	SyscallNS int64  `json:"syscall_ns"` // the cheapest system call there is
	Load      string `json:"load"`       // load averages at the end
}

// slowSyscall tells machines apart on which a system call costs as much as a program run (a few
// hundred cycles) from those on which mitigations or a hypervisor make it several times that.
const slowSyscall = 300 // ns

// observe fills in what does not change during a run.
func observe() Machine {
	m := Machine{SyscallNS: 1 << 62}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	const calls = 200
	for range 50 {
		start := time.Now()
		for range calls {
			unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		}
		m.SyscallNS = min(m.SyscallNS, time.Since(start).Nanoseconds()/calls)
	}
	return m
}

// loadAverage is how busy the machine is.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
