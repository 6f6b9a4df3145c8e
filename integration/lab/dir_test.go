// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
