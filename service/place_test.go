// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// TestPlace_KeepsSlots draws random sets and checks the promise: the members of want, each of
// which keeps its slot if that still exists, so the number of writes is the smallest possible.
func TestPlace_KeepsSlots(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	draw := func() (set []Backend) {
		for i := range 12 {
			if r.IntN(2) == 0 {
				set = append(set, Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80)})
			}
		}
		r.Shuffle(len(set), func(i, j int) { set[i], set[j] = set[j], set[i] })
		return set
	}
	for range 2000 {
		var have []netip.AddrPort
		for _, b := range draw() {
			have = append(have, b.Addr)
		}
		want := draw()
		got := Place(have, want)
		kept := 0
		for i, b := range got {
			if i < len(have) && have[i] == b.Addr {
				kept++
			}
		}
		most := 0
		for i, a := range have {
			if i < len(want) && slices.ContainsFunc(want, func(b Backend) bool { return b.Addr == a }) {
				most++
			}
		}
		sorted := func(s []Backend) []Backend { s = slices.Clone(s); slices.SortFunc(s, compareBackends); return s }
		if !slices.Equal(sorted(got), sorted(want)) || kept != most {
			t.Fatalf("have %v want %v: got %v, kept %d of %d", have, want, got, kept, most)
		}
	}
	if got := Place(nil, nil); len(got) != 0 {
		t.Errorf("nothing placed: %v", got)
	}
}
