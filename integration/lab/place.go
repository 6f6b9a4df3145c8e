// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
