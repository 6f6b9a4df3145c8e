// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

func TestMesh_RemovalDrains(t *testing.T) {
	c, d := newCluster(t, "far", 2), newCluster(t, "further", 3)
	c.fill(2)
	d.fill(3)
	b := newBench(t, nil)
	b.add("far", c.ClientConfig())
	b.add("further", d.ClientConfig())
	b.wantRows("far", one)
	b.wantRows("further", one)
	b.remove("far")
	b.wantRows("far", [4]int{})
	b.always("the other stays", func() bool { return b.rows("further") == one })
	// The last one, from the same directory, is removed like any other.
	b.remove("further")
	b.wantRows("further", [4]int{})
	kvstoretest.Eventually(t, func() string {
		if st := b.mesh.Status(); len(st.Remotes) != 0 || st.Directory.Problem != "" {
			return fmt.Sprintf("%+v", st)
		}
		return ""
	})
	if !b.tables.Nodes.Synced() {
		t.Error("somebody is still waited for")
	}
	b.add("far", c.ClientConfig())
	b.wantRows("far", one)
}

// TestMesh_LostMountKeepsEverything: the directory is away, empty, or another one.
func TestMesh_LostMountKeepsEverything(t *testing.T) {
	c, d := newCluster(t, "far", 2), newCluster(t, "further", 3)
	c.fill(2)
	d.fill(3)
	b := newBench(t, nil)
	b.add("far", c.ClientConfig())
	b.wantRows("far", one)
	b.phase("far", PhaseReady, "")
	stays := func(problem string) {
		t.Helper()
		kvstoretest.Eventually(t, func() string {
			if st := b.mesh.Status().Directory; !strings.Contains(st.Problem, problem) {
				return fmt.Sprintf("problem %q, want %q", st.Problem, problem)
			}
			return ""
		})
		b.always("rows stay", func() bool { return b.rows("far") == one && b.remote("far").Phase == PhaseReady })
	}
	away := b.dir + "-away"
	rename := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	rename(b.dir, away)
	stays("no such file")
	// The empty directory that a mount had covered: not the one that was read.
	if err := os.Mkdir(b.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	stays("all client files are gone at once")
	if err := os.Remove(b.dir); err != nil {
		t.Fatal(err)
	}
	rename(away, b.dir)
	stays("")
	b.add("further", d.ClientConfig())
	b.wantRows("further", one)
	// Two gone at once from the directory itself.
	keep := t.TempDir()
	if err := os.Mkdir(b.dir+"-new", 0o755); err != nil {
		t.Fatal(err)
	}
	rename(b.dir, filepath.Join(keep, "old"))
	rename(b.dir+"-new", b.dir)
	stays("all client files are gone at once")
	if got := b.rows("further"); got != one {
		t.Errorf("rows %v", got)
	}
	// One of them returns; the other has left.
	b.add("far", c.ClientConfig())
	b.wantRows("further", [4]int{})
	stays("")
}

// TestMesh_SymlinkSwap: a mounted secret changes by swapping a link to the folder of all files.
func TestMesh_SymlinkSwap(t *testing.T) {
	c, d := newCluster(t, "far", 2), newCluster(t, "further", 3)
	c.fill(2)
	d.fill(3)
	b := newBench(t, nil)
	link := func(target string) {
		t.Helper()
		temp := filepath.Join(b.dir, "..data_tmp")
		if err := os.Symlink(target, temp); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(temp, filepath.Join(b.dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	folder := func(name string, files map[string]kvstore.Config) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(b.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		for f, cfg := range files {
			b.add(filepath.Join(name, f), cfg)
		}
	}
	folder("..one", map[string]kvstore.Config{"far": c.ClientConfig()})
	link("..one")
	for _, name := range []string{"far", "further"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(b.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	b.wantRows("far", one)
	folder("..two", map[string]kvstore.Config{"far": c.ProxyConfig(), "further": d.ClientConfig()})
	link("..two")
	b.wantRows("further", one)
	kvstoretest.Eventually(t, func() string {
		if st := b.remote("far"); !st.Connected || len(st.Endpoints) != 1 || st.Endpoints[0] != c.ProxyConfig().Endpoints[0] {
			return fmt.Sprintf("%+v", st)
		}
		return ""
	})
}

func TestMesh_BadFiles(t *testing.T) {
	c := newCluster(t, "far", 2)
	c.fill(2)
	b := newBench(t, nil)
	b.add("far", c.ClientConfig())
	b.add("own", c.ClientConfig())                    // ourselves
	b.write("NotAName", "endpoints: [http://x:1]")    // no cluster has such a name
	b.write("ca.crt", "-----BEGIN CERTIFICATE-----")  // a file that lies beside
	b.write("notes", "no end points here")            // neither
	b.write("broken", "endpoints: [http://x]\n")      // a remote with a mistake
	b.write("typo", "endpoints: [http://x:1]\nca: x") // another
	b.wantRows("far", one)
	b.phase("broken", PhaseInvalid, "has no port")
	b.phase("typo", PhaseInvalid, "ca: is not a field")
	if n := len(b.mesh.Status().Remotes); n != 3 {
		t.Errorf("%d remotes", n)
	}
	// One that worked goes on when its file goes bad, and follows it when it is good again.
	for _, text := range []string{"endpoints: [", "", "endpoints: []\n"} {
		b.write("far", text)
		kvstoretest.Eventually(t, func() string {
			if st := b.remote("far"); st.Reason == "" || st.Phase != PhaseReady {
				return fmt.Sprintf("%s: %s", st.Phase, st.Reason)
			}
			return ""
		})
		b.always("rows stay", func() bool { return b.rows("far") == one })
		b.add("far", c.ClientConfig())
		b.phase("far", PhaseReady, "")
		kvstoretest.Eventually(t, func() string { return b.remote("far").Reason })
	}
}
