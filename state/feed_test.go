// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFeed_KeepsACopy(t *testing.T) {
	table := NewTable[string]("rows", Equal[int])
	c := table.Cursor()
	defer c.Close()
	got := map[string]int{}
	feed := func(most int) {
		c.Feed(most, func(k string, v int) { got[k] = v }, func(k string) { delete(got, k) })
	}
	table.Put("a", 0, "one", 1)
	table.Put("a", 0, "two", 2)
	feed(0)
	table.Delete("a", 0, "one")
	table.Put("a", 0, "two", 3)
	feed(1)
	feed(1)
	if diff := cmp.Diff(map[string]int{"two": 3}, maps.Clone(got)); diff != "" {
		t.Error(diff)
	}
}
