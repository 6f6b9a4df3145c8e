// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The examples of the format's page are the golden files.
func TestDocs_ExamplesAreGolden(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "formats", "store.md"))
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("<!-- golden: (\\S+) -->\n```[a-z]*\n(.*)\n```").FindAllSubmatch(page, -1)
	if len(examples) < 13 {
		t.Errorf("got %d examples, want one of each kind of row", len(examples))
	}
	for _, e := range examples {
		if diff := cmp.Diff(string(readGolden(t, string(e[1]))), string(e[2])); diff != "" {
			t.Errorf("%s (-want +got):\n%s", e[1], diff)
		}
	}
}
