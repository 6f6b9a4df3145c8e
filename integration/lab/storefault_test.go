// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/kvstore/backup"
)

// tree is what stands below a directory: the contents of files by their paths.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir+"/")] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestRenew_KeepsTheOldOneUntilTheNewIsWhole(t *testing.T) {
	base := t.TempDir()
	store := filepath.Join(base, "etcd")
	if err := os.CopyFS(base, os.DirFS(writeTree(t, map[string]string{"etcd/old": "old", "etcd.new/left": "by a crash", "note": "no backup"}))); err != nil {
		t.Fatal(err)
	}
	old := map[string]string{"etcd/old": "old", "note": "no backup"}
	for name, produce := range map[string]func(dir string) error{
		"fails at once": func(string) error { return errors.New("no") },
		"fails half-way": func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "half"), nil, 0o600), errors.New("no"))
		},
		"no backup": func(dir string) error {
			_, err := backup.Restore(backup.RestoreConfig{File: filepath.Join(base, "note"), Dir: dir})
			return err
		},
		"no file": func(dir string) error {
			_, err := backup.Restore(backup.RestoreConfig{File: filepath.Join(base, "none"), Dir: dir})
			return err
		},
		"nothing saved": func(dir string) error { return os.CopyFS(dir, os.DirFS(filepath.Join(base, "none"))) },
	} {
		if err := renew(store, produce); err == nil {
			t.Errorf("%s: no error", name)
		}
		if diff := cmp.Diff(old, tree(t, base)); diff != "" {
			t.Errorf("%s: files (-want +got):\n%s", name, diff)
		}
	}
	if err := replaceDir(store, writeTree(t, map[string]string{"new": "new"})); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"etcd/new": "new", "note": "no backup"}, tree(t, base)); diff != "" {
		t.Errorf("files after all went well (-want +got):\n%s", diff)
	}
}

// writeTree makes a directory with these files.
func writeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if err := writeFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
