// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// marker is a file that says whose directory it is: what has none is never removed.
const marker = ".weft-lab"

// markOf reads the name of the lab whose directory it is; empty: of none, or it is not there.
func markOf(dir string) (name string, err error) {
	b, err := os.ReadFile(filepath.Join(dir, marker))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

// claim makes the directory of a lab, and refuses one that is somebody else's.
func claim(name, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("directory %s is not empty; name one that is not there yet with --dir", dir)
	}
	return writeFile(filepath.Join(dir, marker), []byte(name+"\n"), 0o644)
}

// claimed says whether the directory was made for a lab of that name. One that is not there is.
func claimed(name, dir string) (bool, error) {
	mark, err := markOf(dir)
	if err != nil || mark != "" {
		return mark == name, err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return len(entries) == 0 || isDirOf(name, dir), err
}

// elsewhere finds what of a lab was not started from dir: the directories of labs of that name in which
// processes of it run, and how many processes it has at all.
func elsewhere(name, dir string) (dirs []string, processes int, err error) {
	pids, err := processesOf(name)
	if err != nil {
		return nil, 0, err
	}
	here, _ := os.Stat(dir) // nil: it is not there, and no other is the same
	for _, pid := range pids {
		// Each is started there, see start. A shell that somebody left open runs anywhere.
		at, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		if err != nil || slices.Contains(dirs, at) {
			continue
		}
		if there, err := os.Stat(at); err != nil || os.SameFile(here, there) {
			continue
		}
		if mark, err := markOf(at); err == nil && mark == name {
			dirs = append(dirs, at)
		}
	}
	return dirs, len(pids), nil
}

// standsIn is the error of whoever would take a lab that stands for leftovers.
func standsIn(name string, dirs []string) error {
	return fmt.Errorf("a lab %q stands in %s; remove it with 'weft lab down%s', or take another --name",
		name, strings.Join(dirs, " and "), flagsOf(name, dirs[0]))
}

// flagsOf are the flags by which commands find a lab, with a space before each. Without a name it is not known.
func flagsOf(name, dir string) string {
	flags := ""
	if name != "" && name != DefaultOptions().Name {
		flags = " --name " + name
	}
	if !isDirOf(name, dir) {
		flags += " --dir " + dir
	}
	return flags
}
