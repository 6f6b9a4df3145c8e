// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package weft

import (
	goast "go/ast"
	"go/parser"
	"go/token"
	"path"
	"sort"
	"strings"
	"testing"
)

// ast is one parsed file with what the tests of the house ask of it.
type ast struct {
	*goast.File
	fset *token.FileSet
}

func (a *ast) generated() bool { return goast.IsGenerated(a.File) }

func (a *ast) pos(n goast.Node) string { return a.fset.Position(n.Pos()).String() }

// funcs returns the plain functions of that name.
func (a *ast) funcs(name string) []string {
	var found []string
	for _, d := range a.Decls {
		if f, ok := d.(*goast.FuncDecl); ok && f.Recv == nil && f.Name.Name == name {
			found = append(found, name)
		}
	}
	return found
}

// TestPackages_AreExplained holds every package to exactly one package comment, long enough to say
// what the package is for.
func TestPackages_AreExplained(t *testing.T) {
	docs := map[string][]string{}
	goFiles(t, parser.ParseComments|parser.PackageClauseOnly, func(file string, f *ast) {
		dir := path.Dir(file)
		if strings.HasSuffix(file, "_test.go") {
			return
		}
		if _, ok := docs[dir]; !ok {
			docs[dir] = nil
		}
		if f.Doc == nil {
			return
		}
		docs[dir] = append(docs[dir], file)
		if n := len(strings.Fields(f.Doc.Text())); n < 12 && dir != "." {
			t.Errorf("%s: the package comment has %d words; say what it is for, what it is not for, and who may import it", file, n)
		}
	})
	var dirs []string
	for d := range docs {
		dirs = append(dirs, d)
	}
	sort.Strings(dirs)
	for _, d := range dirs {
		if len(docs[d]) != 1 {
			t.Errorf("package %s has %d package comments (%s), want one", d, len(docs[d]), strings.Join(docs[d], ", "))
		}
	}
}

// TestFiles_CarryALicence holds every hand-written file to the two lines of the licence.
func TestFiles_CarryALicence(t *testing.T) {
	goFiles(t, parser.ParseComments, func(file string, f *ast) {
		if f.generated() {
			return
		}
		for _, c := range f.Comments {
			for _, l := range c.List {
				if strings.Contains(l.Text, "SPDX-License-Identifier: ") {
					return
				}
			}
		}
		t.Errorf("%s: no SPDX-License-Identifier line", file)
	})
}
