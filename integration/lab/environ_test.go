// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/internal/netns"
)

// foreignEnviron sets variables of which only some are for the programs of a lab, and returns those.
func foreignEnviron(t *testing.T) []string {
	for _, name := range []string{"WEFT_SOCKET", "WEFT_ETCD", "WEFT_CLUSTER", "WEFT_BPFFS", "WEFT_CONFIG", "WEFT_NODE", "WEFT_LAB"} {
		t.Setenv(name, "of-somebody-else")
	}
	t.Setenv("WEFT_LOG_LEVEL", "debug")
	t.Setenv("WEFT_TEST_CLOCK", "/a/file")
	t.Setenv("WEFTLESS", "is not ours")
	return []string{"WEFTLESS=is not ours", "WEFT_LOG_LEVEL=debug", "WEFT_TEST_CLOCK=/a/file"}
}

// weftOf are the variables that begin as those of weft do, sorted.
func weftOf(environ []string) []string {
	ours := slices.DeleteFunc(slices.Clone(environ), func(v string) bool { return !strings.HasPrefix(v, "WEFT") })
	slices.Sort(ours)
	return ours
}

func TestEnviron_HasNoSettingsOfOthers(t *testing.T) {
	want := foreignEnviron(t)
	got := environ()
	if diff := cmp.Diff(want, weftOf(got)); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if !slices.Contains(got, "PATH="+os.Getenv("PATH")) {
		t.Error("no PATH in the environment")
	}
}

// The processes of a lab have it too, with the mark of their lab.
func TestEnviron_OfProcesses(t *testing.T) {
	netns.RequireRoot(t)
	l := &Lab{Name: "tenv", Dir: t.TempDir(), Weft: "/usr/bin/env"}
	ns, err := netns.New(prefix(l.Name) + "n")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := ns.Delete(); err != nil {
			t.Error(err)
		}
	}()
	want := append(foreignEnviron(t), "WEFT_LAB=tenv")
	slices.Sort(want)
	said, _, err := l.pipe(t.Context(), ns.Name(), "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, weftOf(strings.Split(said, "\n"))); diff != "" {
		t.Errorf("of a command (-want +got):\n%s", diff)
	}
	p := Process{Netns: ns.Name(), Log: filepath.Join(l.Dir, "log")}
	if err := l.start(&p); err != nil {
		t.Fatal(err)
	}
	if err := until(t.Context(), func() (bool, error) { return !p.alive(), nil }); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(p.Log)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, weftOf(strings.Split(string(b), "\n"))); diff != "" {
		t.Errorf("of a process (-want +got):\n%s", diff)
	}
}
