// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/weft-net/weft/integration/lab"
	"github.com/weft-net/weft/internal/netns"
)

// patience bounds a wait of a script for a condition. It is long because the machine may be slow;
// nothing is judged by how much of it was needed.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	if file := os.Getenv(childStore); file != "" {
		if err := runStore(file, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// Scripts wait for processes and elections as much as they compute: one more than there are cores.
	if err := flag.Set("test.parallel", strconv.Itoa(runtime.GOMAXPROCS(0)+1)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if built.Load() {
			if bin, err := weftBinary(); err == nil {
				os.RemoveAll(filepath.Dir(bin))
			}
		}
		os.Exit(code)
	}))
}

// built says whether there is a binary to remove.
var built atomic.Bool

// weftBinary is the weft that all tests of this package run, built once, under the race detector where
// these tests are.
var weftBinary = sync.OnceValues(func() (string, error) {
	built.Store(true)
	dir, err := os.MkdirTemp("", "weft-test-*")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "weft")
	args := []string{"build", "-o", bin}
	if raceEnabled {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "github.com/weft-net/weft/cmd/weft")...).CombinedOutput()
	if err != nil {
		return bin, fmt.Errorf("build weft: %w\n%s", err, out)
	}
	return bin, nil
})

func build(t *testing.T) string {
	t.Helper()
	bin, err := weftBinary()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// TestScripts runs each script of testdata with a lab name of its own. A lab is a dozen processes,
// so on a small machine they run one after the other.
func TestScripts(t *testing.T) {
	netns.RequireRoot(t)
	bin := build(t)
	turn := make(chan struct{}, 1)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			turn <- struct{}{}
			env.Defer(func() { <-turn })
			name := labName(strings.TrimPrefix(filepath.Base(env.WorkDir), "script-"))
			env.Setenv("LAB", name)
			env.Setenv("WEFT", bin)
			env.Setenv("PATH", filepath.Dir(bin)+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Defer(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				if err := lab.Down(ctx, name, lab.DirOf(name)); err != nil {
					t.Error(err)
				}
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"lab":        cmdLab,
			"eventually": cmdEventually,
			"gone":       cmdGone,
			"races":      cmdRaces,
			"store":      cmdStore,
			"maps":       cmdMaps,
		},
	})
}

// labName makes a lab's name of what it is for and of this process: at most twelve letters and digits.
// So two runs of the tests on one machine leave each other's labs alone.
func labName(of string) string {
	of = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, of)
	return fmt.Sprintf("t%s%s", of[:min(len(of), 6)], strconv.FormatInt(int64(os.Getpid()), 36))
}

// cmdLab runs "weft lab ARGS --name $LAB" (name and -- in the right place). When it fails, the ends
// of the lab's logs are shown.
func cmdLab(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: lab SUBCOMMAND ...")
	}
	err := ts.Exec("weft", labArgs(ts, args)...)
	if (err != nil) != neg {
		if !neg {
			showLogs(ts)
		}
		ts.Fatalf("weft lab %s: %v", strings.Join(args, " "), err)
	}
}

func labArgs(ts *testscript.TestScript, args []string) []string {
	return append([]string{"lab", args[0], "--name", ts.Getenv("LAB")}, args[1:]...)
}

func showLogs(ts *testscript.TestScript) {
	logs, _ := filepath.Glob(filepath.Join(lab.DirOf(ts.Getenv("LAB")), "*", "*.log"))
	for _, file := range logs {
		b, err := os.ReadFile(file)
		if err != nil || len(b) == 0 || strings.HasSuffix(file, "-web.log") {
			continue
		}
		const most = 3000
		ts.Logf("--- %s\n%s", file, b[max(0, len(b)-most):])
	}
}

// cmdEventually repeats "lab ARGS" until it succeeds (with !: until it fails), and its output has a
// text where one is given: [!] eventually [-out TEXT] ARGS.
func cmdEventually(ts *testscript.TestScript, neg bool, args []string) {
	want := ""
	if len(args) > 2 && args[0] == "-out" {
		want, args = args[1], args[2:]
	}
	end := time.After(patience)
	for {
		cmd := exec.Command(ts.Getenv("WEFT"), labArgs(ts, args)...)
		cmd.Dir = ts.MkAbs(".")
		out, err := cmd.CombinedOutput()
		if (err != nil) == neg && strings.Contains(string(out), want) {
			return
		}
		select {
		case <-end:
			showLogs(ts)
			ts.Fatalf("not within %v: lab %s: %s%v", patience, strings.Join(args, " "), out, err)
		case <-time.After(100 * time.Millisecond): // the condition is outside of this process
		}
	}
}

// cmdGone checks that nothing of the lab is left on the host.
func cmdGone(ts *testscript.TestScript, neg bool, _ []string) {
	name := ts.Getenv("LAB")
	traces, err := lab.Traces(name, lab.DirOf(name))
	ts.Check(err)
	if (len(traces) > 0) != neg {
		ts.Fatalf("traces of the lab: %v", traces)
	}
}

// cmdRaces fails if the race detector spoke up in one of the lab's processes, or one of them
// panicked.
func cmdRaces(ts *testscript.TestScript, _ bool, _ []string) {
	logs, err := filepath.Glob(filepath.Join(lab.DirOf(ts.Getenv("LAB")), "*", "*.log"))
	ts.Check(err)
	if len(logs) == 0 {
		ts.Fatalf("no logs of the lab %s", ts.Getenv("LAB"))
	}
	for _, file := range logs {
		b, err := os.ReadFile(file)
		ts.Check(err)
		for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if i := strings.Index(string(b), bad); i >= 0 {
				ts.Fatalf("%s: %s", file, b[i:min(len(b), i+4000)])
			}
		}
	}
}
