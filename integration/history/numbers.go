// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package history

import (
	"fmt"
	"maps"
	"slices"
)

// checkNumbers judges the numbers of identities: at any time all who stand for a label set in a
// cluster do so by one number, and nobody else has it.
func checkNumbers(records []Record, _ Limits) []finding {
	type holder struct{ store, by, labels string }
	type number struct {
		store  string
		number uint32
	}
	uses := map[holder]uint32{}
	ofLabels := map[[2]string]map[string]uint32{} // (store, labels) → by → number
	ofNumber := map[number]map[string]string{}    // → by → labels
	var found []finding
	for at, r := range records {
		if r.Kind != Uses && r.Kind != Frees {
			continue
		}
		h := holder{r.Store, r.By, r.Labels}
		set := [2]string{r.Store, r.Labels}
		blame := func(format string, args ...any) {
			found = append(found, finding{ErrBrokeOneNumber, fmt.Sprintf("%s of %s: ", r.Labels, r.Store) + fmt.Sprintf(format, args...), "", at,
				func(x Record) bool {
					return (x.Kind == Uses || x.Kind == Frees) && x.Store == r.Store && (x.Labels == r.Labels || x.Number == r.Number)
				}})
		}
		was, had := uses[h]
		if had {
			delete(ofLabels[set], r.By)
			delete(ofNumber[number{r.Store, was}], r.By+"\x00"+r.Labels)
			delete(uses, h)
		}
		if r.Kind == Frees {
			continue
		}
		if had && was != r.Number {
			blame("%s used %d without a break and has %d now", r.By, was, r.Number)
		}
		for _, other := range slices.Sorted(maps.Keys(ofLabels[set])) {
			if n := ofLabels[set][other]; n != r.Number {
				blame("%s uses %d while %s uses %d", r.By, r.Number, other, n)
				break
			}
		}
		n := number{r.Store, r.Number}
		for _, other := range slices.Sorted(maps.Keys(ofNumber[n])) {
			if labels := ofNumber[n][other]; labels != r.Labels {
				blame("%s uses %d, which stands for %s", r.By, r.Number, labels)
				break
			}
		}
		if ofLabels[set] == nil {
			ofLabels[set] = map[string]uint32{}
		}
		if ofNumber[n] == nil {
			ofNumber[n] = map[string]string{}
		}
		uses[h], ofLabels[set][r.By], ofNumber[n][r.By+"\x00"+r.Labels] = r.Number, r.Number, r.Labels
	}
	return found
}
