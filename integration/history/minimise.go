// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package history

import "slices"

// minimise returns a part of the history of which no record can be left out without the violation
// going away. It is the same violation, told in the same words: leaving out what excuses an
// innocent record would show another one.
func minimise(records []Record, check validator, l Limits, f finding) []Record {
	var part []Record
	for i, r := range records {
		if i > f.at {
			break
		}
		if f.about(r) {
			part = append(part, r)
		}
	}
	shows := func(rs []Record) bool {
		return slices.ContainsFunc(check(rs, l), func(g finding) bool { return g.broke == f.broke && g.what == f.what })
	}
	if !shows(part) {
		return part // the validator breaks its contract: better too much than nothing
	}
	for size := (len(part) + 1) / 2; size > 0; {
		cut := false
		for i := 0; i < len(part); {
			rest := slices.Concat(part[:i], part[min(i+size, len(part)):])
			if shows(rest) {
				part, cut = rest, true
			} else {
				i += size
			}
		}
		switch {
		case size > 1:
			size = min(size/2, max(1, len(part)/2))
		case !cut:
			size = 0
		}
	}
	for i := range part {
		thin(part, i, f.key, shows)
	}
	return part
}

// thin leaves only the row concerned in a record that lists many.
func thin(part []Record, i int, key string, shows func([]Record) bool) {
	whole := part[i]
	if len(whole.Rows) == 0 && len(whole.Hold) == 0 {
		return
	}
	part[i].Rows, part[i].Hold = nil, nil
	if revision, there := whole.Rows[key]; there {
		part[i].Rows = map[string]int64{key: revision}
	}
	if slices.Contains(whole.Hold, key) {
		part[i].Hold = []string{key}
	}
	if !shows(part) {
		part[i] = whole
	}
}
