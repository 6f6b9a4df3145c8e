// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"iter"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestIndex_AgainstModel compares with a search through all rows.
func TestIndex_AgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		x := NewIndex(func(_ int, terms string) iter.Seq[rune] {
			return func(yield func(rune) bool) {
				for _, r := range terms {
					if !yield(r) {
						return
					}
				}
			}
		})
		table := NewTable[int]("test", Equal[string])
		c := table.Cursor()
		for range 400 {
			k := rnd.IntN(30)
			if rnd.IntN(3) == 0 {
				table.Delete("s", 0, k)
			} else {
				terms := make([]byte, rnd.IntN(6))
				for i := range terms {
					terms[i] = byte('a' + rnd.IntN(5))
				}
				table.Put("s", 0, k, string(terms))
			}
			if rnd.IntN(4) > 0 {
				continue
			}
			x.Apply(c.Next(0))
			if x.Len() != table.Len() {
				t.Fatalf("Len = %d, want %d", x.Len(), table.Len())
			}
			want, got := map[rune][]int{}, map[rune][]int{}
			for row := range table.All() {
				for _, term := range row.Value {
					if !slices.Contains(want[term], row.Key) {
						want[term] = append(want[term], row.Key)
					}
				}
			}
			for term := range x.Terms() {
				got[term] = slices.Sorted(x.Keys(term))
				if x.Count(term) != len(got[term]) {
					t.Fatalf("Count(%c) = %d, want %d", term, x.Count(term), len(got[term]))
				}
				for _, k := range got[term] {
					if !x.Has(term, k) {
						t.Fatalf("Has(%c, %d) = false", term, k)
					}
				}
			}
			for _, keys := range want {
				slices.Sort(keys)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("index (-want +got):\n%s", diff)
			}
			if len(slices.Collect(x.Keys('z'))) != 0 || x.Has('z', 1) || x.Count('z') != 0 {
				t.Fatal("something is found by a term that no row has")
			}
		}
		c.Close()
	}
}
