// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/netns"
)

func TestRealPath(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(base, "there"), 0o700); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"link": "there", "nowhere": "gone", "round": "round"} {
		if err := os.Symlink(to, filepath.Join(base, link)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(base)
	for _, c := range []struct{ name, dir, want string }{ // want without what stands before; empty: an error
		{"absolute", base + "/there", "there"},
		{"relative", "there", "there"},
		{"here", "./there/../there/.", "there"},
		{"slash-at-the-end", base + "/there//", "there"},
		{"link", "link", "there"},
		{"below-a-link", "link/lab/x/", "there/lab/x"},
		{"not-there", "new/lab", "new/lab"},
		{"link-to-nothing", "nowhere", ""},
		{"below-a-link-to-nothing", "nowhere/lab", ""},
		{"link-to-itself", "round/lab", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := realPath(c.dir)
			if c.want == "" {
				if err == nil {
					t.Errorf("%s is %s, want an error", c.dir, got)
				}
				return
			}
			if want := filepath.Join(base, c.want); err != nil || got != want {
				t.Errorf("%s is %s, %v, want %s", c.dir, got, err, want)
			}
		})
	}
}

// runLab runs a lab's command with its arguments and returns what it printed.
func runLab(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := Command()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	cmd.SilenceUsage = true
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// However the directory is named, nothing stays mounted.
func TestDown_BySeveralNamesOfADirectory(t *testing.T) {
	netns.RequireRoot(t)
	for name, dir := range map[string]string{
		"relative": "with space/lab", "slash": "with space/lab/", "dots": "with space/../with space/lab/.", "link": "link/lab",
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.Mkdir("with space", 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("with space", "link"); err != nil {
				t.Fatal(err)
			}
			l := &Lab{Dir: "with space/lab", BPFFS: bpfDir("with space/lab")}
			if err := claim("tdirs", l.Dir); err != nil {
				t.Fatal(err)
			}
			if err := l.writeFiles(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := unix.Unmount(l.BPFFS, unix.MNT_DETACH); err == nil {
					t.Error("the bpf file system is still mounted")
				}
			}()
			if said, err := runLab(t, "down", "--name", "tdirs", "--dir", dir); err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
			if _, err := os.Stat(l.Dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the directory is still there: %v", err)
			}
		})
	}
}

// Removed is by name; a lab of the same name in another directory is nobody's leftovers.
func TestUp_LeavesALabElsewhere(t *testing.T) {
	l := childLab(t, "telse", "", "/bin/sleep")
	p := startIn(t, l, "600")
	o := DefaultOptions()
	o.Name, o.Dir, o.Weft = l.Name, filepath.Join(t.TempDir(), "other"), l.Weft
	refused := func(what string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
		if !p.alive() {
			t.Fatalf("%s: it has killed the other one's process", what)
		}
		if _, err := os.Stat(o.Dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: it has made a directory: %v", what, err)
		}
	}
	hint := "stands in " + l.Dir + "; remove it with 'weft lab down --name telse --dir " + l.Dir + "'"
	_, err := Up(t.Context(), o, nil)
	refused("up", err, hint)
	refused("demo", Demo(t.Context(), o, false, nil), hint)
	refused("down", Down(t.Context(), o.Name, o.Dir), hint)

	// What is left of a lab whose directory is gone is removed where somebody asks for that.
	if err := os.RemoveAll(l.Dir); err != nil {
		t.Fatal(err)
	}
	_, err = Up(t.Context(), o, nil)
	refused("up without the other one's directory", err,
		"1 processes of a lab \"telse\" run, and there is none in "+o.Dir+"; end them with 'weft lab down --name telse --dir "+o.Dir+"'")
	if err := Down(t.Context(), o.Name, o.Dir); err != nil {
		t.Error(err)
	}
	if left, err := Traces(o.Name, o.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFlagsOf(t *testing.T) {
	for _, c := range []struct{ name, dir, want string }{
		{"lab", DirOf("lab"), ""},
		{"two", DirOf("two"), " --name two"},
		{"lab", "/tmp/x", " --dir /tmp/x"},
		{"two", DirOf("lab"), " --name two --dir " + DirOf("lab")},
	} {
		if got := flagsOf(c.name, c.dir); got != c.want {
			t.Errorf("flags of %s in %s: %q, want %q", c.name, c.dir, got, c.want)
		}
	}
}
