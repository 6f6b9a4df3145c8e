// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTree_IsAPersistentSet changes a tree at random and compares it, and every tree that was before,
// with sorted slices.
func TestTree_IsAPersistentSet(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	type kept struct {
		tree tree
		keys []string
	}
	var (
		tr   tree
		keys []string
		all  []kept
	)
	check := func(tr tree, keys []string) {
		t.Helper()
		from, to := fmt.Sprintf("%04d", r.IntN(3000)), fmt.Sprintf("%04d", r.IntN(3000))
		if r.IntN(4) == 0 {
			to = ""
		}
		var want, got []string
		for _, k := range keys {
			if k >= from && (to == "" || k < to) {
				want = append(want, k)
			}
		}
		tr.ascend(from, to, func(it *item) bool { got = append(got, it.key); return true })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("from %s to %s (-want +got):\n%s", from, to, diff)
		}
		if n := tr.count(from, to); n != len(want) {
			t.Fatalf("count from %s to %q: got %d, want %d", from, to, n, len(want))
		}
		if tr.len() != len(keys) {
			t.Fatalf("got %d keys, want %d", tr.len(), len(keys))
		}
	}
	for round := range 200 {
		e := new(edit)
		grow := round%100 < 60
		for range r.IntN(40) {
			k := fmt.Sprintf("%04d", r.IntN(3000))
			i, found := slices.BinarySearch(keys, k)
			if found != (tr.get(k) != nil) {
				t.Fatalf("%s is there: %t, want %t", k, !found, found)
			}
			switch {
			case grow && !found:
				keys = slices.Insert(slices.Clone(keys), i, k)
				tr = tr.set(e, &item{key: k})
			case grow:
				it := &item{key: k}
				if tr = tr.set(e, it); tr.get(k) != it {
					t.Fatalf("%s was not replaced", k)
				}
			default:
				if found {
					keys = slices.Delete(slices.Clone(keys), i, i+1)
				}
				tr = tr.remove(e, k)
			}
		}
		check(tr, keys)
		if round%20 == 0 {
			all = append(all, kept{tr, keys})
		}
		old := all[r.IntN(len(all))]
		check(old.tree, old.keys)
	}
	e := new(edit)
	for _, k := range keys {
		tr = tr.remove(e, k)
	}
	if tr.root != nil || tr.len() != 0 {
		t.Fatalf("%d keys are left in an emptied tree", tr.len())
	}
}
