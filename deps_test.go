// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package weft

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/weft-net/weft"

// layers is the import direction of docs/architecture.md, low to high: a package may import what
// stands before its own layer, and inside its own layer. internal/ may be imported by all.
var layers = []string{
	"internal", "state", "kvstore", "identity", "policy", "service", "bpf", "datapath", "observe",
	"proxy", "clustermesh", "k8s", "agent", "operator", "apiserver", "integration", "cmd",
}

// extra holds the edges that the order allows but the house does not: why each is forbidden.
var extra = []struct{ from, to, why string }{
	{"bpf", "*", "the C programs and their bindings know nothing of the rest"},
	{"clustermesh", "datapath", "a remote cluster never programs the kernel"},
	{"operator", "datapath", "the operator is not needed for packets to flow"},
	{"operator", "agent", "the operator is not needed for packets to flow"},
}

func layerOf(pkg string) int {
	top, _, _ := strings.Cut(pkg, "/")
	for i, l := range layers {
		if l == top {
			return i
		}
	}
	return -1
}

// goFiles walks every Go file of the project with its parsed head.
func goFiles(t *testing.T, mode parser.Mode, visit func(file string, f *ast)) {
	t.Helper()
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); n == "testdata" || n == "build" || (strings.HasPrefix(n, ".") && n != ".") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, p, nil, mode)
		if err != nil {
			return err
		}
		visit(filepath.ToSlash(p), &ast{f, fset})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestImports_FollowTheHouse(t *testing.T) {
	goFiles(t, parser.ImportsOnly, func(file string, f *ast) {
		pkg := path.Dir(file)
		if pkg == "." {
			return
		}
		from := layerOf(pkg)
		if from < 0 {
			t.Errorf("%s: folder %q is not in the house (docs/architecture.md)", file, pkg)
			return
		}
		for _, im := range f.Imports {
			name, _ := strconv.Unquote(im.Path.Value)
			if im.Name != nil && im.Name.Name == "_" && name != "embed" {
				t.Errorf("%s: blank import of %s: nothing registers itself here", file, name)
			}
			to, ours := strings.CutPrefix(name, module+"/")
			if !ours {
				continue
			}
			if l := layerOf(to); l > from {
				t.Errorf("%s imports %s: %s stands above %s in the house (docs/architecture.md)",
					file, to, layers[l], layers[from])
			}
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, e := range extra {
				if layers[from] == e.from && layerOf(to) != from && !strings.HasPrefix(to, "internal/") &&
					(e.to == "*" || layers[layerOf(to)] == e.to) {
					t.Errorf("%s imports %s: %s", file, to, e.why)
				}
			}
		}
	})
}

// TestSource_NoInit keeps what runs before main out of the tree, and words that mean "later".
func TestSource_NoInit(t *testing.T) {
	later := regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)
	goFiles(t, parser.ParseComments, func(file string, f *ast) {
		generated := f.generated()
		if !generated {
			for _, name := range f.funcs("init") {
				t.Errorf("%s: func %s: a constructor does this where it can be seen", file, name)
			}
		}
		for _, c := range f.Comments {
			if !generated && later.MatchString(c.Text()) && file != "deps_test.go" {
				t.Errorf("%s: a comment says later: %q", f.pos(c), strings.TrimSpace(c.Text()))
			}
		}
	})
}
