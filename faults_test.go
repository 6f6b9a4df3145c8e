// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package weft

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var testName = regexp.MustCompile(`\bTest[A-Z]\w*`)

// TestFaults_NameTestsThatExist checks that each test which docs/faults.md calls a proof is there.
func TestFaults_NameTestsThatExist(t *testing.T) {
	var code strings.Builder
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		code.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(doc)) {
		for _, name := range testName.FindAllString(line, -1) {
			if !strings.Contains(code.String(), "func "+name+"(") {
				t.Errorf("docs/faults.md names %s, which does not exist", name)
			}
		}
		if cells := strings.Split(line, "|"); len(cells) == 5 && !strings.Contains(cells[1], "---") && strings.TrimSpace(cells[3]) == "" {
			t.Errorf("no test for %s", cells[1])
		}
	}
}
