// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/integration/lab"
)

// clockFile names, to a weft that was built with skewedClock, the file of the seconds by which its clock
// is wrong.
const clockFile = "WEFT_TEST_CLOCK"

// skewedClock is what the library's package time has more in such a weft. A time namespace does not move
// the wall clock, and moving the machine's would move it for all nodes and for whoever else is on it. As
// with a step of the real clock, the monotonic one and with it every timer goes on as before; the kernel's
// own times, as those of files, are not moved.
const skewedClock = `package time

import (
	"sync/atomic"
	"syscall"
)

// skewed is by how many seconds the wall clock is wrong. Now must not read the file itself: the runtime
// calls it between goroutines, for timers.
var skewed atomic.Int64

func init() {
	if path, ok := syscall.Getenv("` + clockFile + `"); ok {
		go func() {
			for ; ; Sleep(100 * Millisecond) {
				readSkew(path)
			}
		}()
	}
}

func readSkew(path string) {
	fd, err := open(path)
	if err != nil {
		return
	}
	defer closefd(fd)
	var buf [32]byte
	n, err := read(fd, buf[:])
	if n <= 0 || err != nil {
		return
	}
	sign, by := int64(1), int64(0)
	for _, c := range buf[:n] {
		switch {
		case c == '-':
			sign = -1
		case c >= '0' && c <= '9':
			by = 10*by + int64(c-'0')
		}
	}
	skewed.Store(sign * by)
}
`

// skewable is a weft whose clock can be wrong, built once. It compiles the standard library anew, which
// takes minutes, so it is for the soak only.
var skewable = sync.OnceValues(func() (string, error) {
	usual, err := weftBinary()
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(usual) // which goes with it
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("where is the standard library: %w", err)
	}
	library := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	now, err := os.ReadFile(filepath.Join(library, "time.go"))
	if err != nil {
		return "", err
	}
	const reads = "sec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(now), reads) != 1 {
		return "", fmt.Errorf("time.Now of %s is not as it was known: adapt skewable", runtime.Version())
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for name, text := range map[string]string{
		"time.go": strings.Replace(string(now), reads, reads+"\tsec += skewed.Load()\n", 1), "skewed.go": skewedClock,
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return "", err
		}
		overlay.Replace[filepath.Join(library, name)] = file
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	file, bin := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "weft-skewed")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-overlay", file, "-o", bin, "github.com/weft-net/weft/cmd/weft").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build weft with a clock that can be wrong: %w\n%s", err, out)
	}
	return bin, nil
})

// clockFaults are those of a node whose wall clock jumps, under an agent that goes on and one that starts
// while it is wrong.
func clockFaults() []fault {
	var all []fault
	for _, step := range []time.Duration{time.Hour, -time.Hour} {
		all = append(all, fault{
			name: fmt.Sprintf("the clock of a node steps by %v", step), store: "east", long: true,
			before: func(t *trial) {
				t.m.t.Helper()
				t.skewAgent()
				spares(2)(t)
			},
			breaking: func(t *trial) {
				t.m.t.Helper()
				t.step(step)
				t.work(t.spares[:1])
				t.restartSkewed()
				t.work(t.spares[1:])
			},
			heal: func(t *trial) {
				t.m.t.Helper()
				t.step(0)
				t.spares = t.addSpares(t.cluster.Nodes[0], 1)
				t.work(t.spares)
			},
		})
	}
	return all
}

// skewAgent lets the agent of the first node go on as one whose clock can be wrong.
func (t *trial) skewAgent() {
	t.m.t.Helper()
	if t.clock != "" {
		return
	}
	t.clock = filepath.Join(t.m.t.TempDir(), "clock")
	t.m.t.Setenv(clockFile, t.clock)
	t.setClock(0)
	t.restartSkewed()
	t.m.waitHealthy()
}

// restartSkewed kills the agent of the first node and starts one whose clock is as the file says. Its log
// has that clock's times, so the history goes without.
func (t *trial) restartSkewed() {
	t.m.t.Helper()
	bin, err := skewable()
	if err != nil {
		t.m.t.Fatal(err)
	}
	node := t.cluster.Nodes[0].Name
	t.blind[node] = true
	t.m.lab("kill", "agent/"+node)
	t.m.useBinary(bin)
	defer t.m.useBinary(t.m.bin)
	t.m.lab("start", "agent/"+node)
}

// useBinary says which weft the lab starts from now on, as its file does.
func (m *mesh) useBinary(bin string) {
	m.t.Helper()
	l, err := lab.Open(lab.DirOf(m.name))
	if err != nil {
		m.t.Fatal(err)
	}
	l.Weft = bin
	b, err := json.Marshal(l)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.Dir, "lab.json"), b, 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (o *observer) setClock(by time.Duration) {
	o.m.t.Helper()
	if err := os.WriteFile(o.clock, []byte(strconv.Itoa(int(by/time.Second))), 0o600); err != nil {
		o.m.t.Fatal(err)
	}
}

// step makes the clock of the first node wrong and waits until its agent has noticed: until it calls the
// store confirmed at such a time.
func (t *trial) step(by time.Duration) {
	t.m.t.Helper()
	t.setClock(by)
	waitFor(t.m.t, fmt.Sprintf("a clock that is wrong by %v", by), func() bool {
		var confirmed int64
		err := t.call(t.cluster.Nodes[0].Name, func(ctx context.Context, c api.AgentClient) error {
			st, err := c.Status(ctx, &api.StatusRequest{})
			for _, line := range st.GetLines() {
				if line.Component == "etcd" {
					confirmed = line.Confirmed
				}
			}
			return err
		})
		off := time.Unix(0, confirmed).Sub(time.Now().Add(by)).Abs()
		return err == nil && off < by.Abs()/2+time.Minute/2
	})
}

// work lets endpoints of the node end, and another one begin and be known everywhere.
func (t *trial) work(pods []lab.Pod) {
	t.m.t.Helper()
	t.drop(pods)
	t.waitGone(pods)
	fresh := t.addSpares(t.cluster.Nodes[0], 1)
	t.waitHere(fresh)
	t.drop(fresh)
	t.waitGone(fresh)
}
