// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/integration/lab"
)

// loadProcess is a running "weft lab load".
type loadProcess struct {
	m   *mesh
	cmd *exec.Cmd
	out bytes.Buffer
}

// load starts a client in a pod.
func (m *mesh) load(from string, args ...string) *loadProcess {
	m.t.Helper()
	p := &loadProcess{m: m}
	p.cmd = exec.Command(m.bin, append([]string{"lab", "load", "--name", m.name, "-o", "json", "--from", from}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, os.Stderr
	if err := p.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			p.cmd.Process.Kill()
			p.cmd.Wait() //nolint:errcheck // it was killed
		}
	})
	return p
}

// stop ends the client and returns what it saw.
func (p *loadProcess) stop() lab.Summary {
	p.m.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.m.t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		p.m.t.Fatalf("load: %v: %s", err, p.out.String())
	}
	var sum lab.Summary
	if err := json.Unmarshal(p.out.Bytes(), &sum); err != nil {
		p.m.t.Fatalf("load: %v: %s", err, p.out.String())
	}
	return sum
}

// noRaces fails if the race detector spoke up in a process of the lab, or one panicked.
func (m *mesh) noRaces() {
	m.t.Helper()
	files, err := filepath.Glob(filepath.Join(lab.DirOf(m.name), "*", "*.log"))
	if err != nil || len(files) == 0 {
		m.t.Fatalf("logs of the lab: %v, %d files", err, len(files))
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			m.t.Fatal(err)
		}
		for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if i := strings.Index(string(b), bad); i >= 0 {
				m.t.Fatalf("%s: %s", f, b[i:min(len(b), i+4000)])
			}
		}
	}
}

// getsockopt reads an option that has no typed accessor in x/sys.
func getsockopt(fd, level, option int, b []byte) (int, error) {
	n := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
