// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package weft

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	codePointer = regexp.MustCompile("`([A-Za-z0-9_.-]+/[A-Za-z0-9_./-]*)`")
	docLink     = regexp.MustCompile(`\]\(([^)#:]+)\)`)
)

// TestDocs_PointAtWhatExists checks every path between backticks whose first part is a folder of
// the house, and every relative link.
func TestDocs_PointAtWhatExists(t *testing.T) {
	files := []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"}
	for _, glob := range []string{"docs/*.md", "docs/*/*.md"} {
		more, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, m := range codePointer.FindAllStringSubmatch(string(b), -1) {
			path := m[1]
			// Keys of the store and import paths look like paths too.
			top, _, _ := strings.Cut(path, "/")
			if layerOf(path) < 0 && top != "docs" && top != "deploy" {
				continue
			}
			if _, err := os.Stat(strings.TrimSuffix(path, "/")); err != nil {
				// A name of an identifier in a package is good if the package exists: state.Table.
				if dir, _, ok := strings.Cut(path, "."); !ok || !isDir(dir) {
					t.Errorf("%s points at %s, which does not exist", file, path)
				}
			}
		}
		for _, m := range docLink.FindAllStringSubmatch(string(b), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s links to %s, which does not exist", file, m[1])
			}
		}
	}
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}
