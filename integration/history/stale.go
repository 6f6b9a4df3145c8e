// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package history

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// heldByServer is the revision of a row that an API server serves although its store has lost it: nothing
// is put into an etcd at that.
const heldByServer = 1

// checkStale compares every list, and every table that calls itself synced, with the store at the
// revision it names. What the history does not reach is not judged.
func checkStale(records []Record, _ Limits) []finding {
	truth := storesOf(records)
	var found []finding
	for at, r := range records {
		if r.Kind != Listed && r.Kind != Table {
			continue
		}
		s := truth[lineage{r.Store, r.Lineage}]
		if s == nil || r.Revision < s.base.Revision || r.Revision > s.followed {
			continue
		}
		want := s.rows(r.Prefix, r.Revision)
		keys := map[string]bool{}
		for key := range want {
			keys[key] = true
		}
		for key := range r.Rows {
			keys[key] = true
		}
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			have, here := r.Rows[key]
			is, there := want[key]
			if here == there && have == is || here && !there && (slices.Contains(r.Hold, key) || have == heldByServer) {
				continue
			}
			what := fmt.Sprintf("%s %s of %s at revision %d has %s %s, the store has it %s",
				r.Prefix, r.Kind, r.By, r.Revision, key, version(have, here), version(is, there))
			about := func(x Record) bool {
				switch x.Kind {
				case Base, Followed:
					return x.Store == r.Store && x.Lineage == r.Lineage
				case Write:
					return x.Store == r.Store && x.Lineage == r.Lineage && (x.Key == key || x.Revision >= r.Revision)
				case Listed, Table:
					return x.Kind == r.Kind && x.By == r.By && x.Store == r.Store && x.Prefix == r.Prefix && x.Revision == r.Revision
				}
				return false
			}
			// A write after the record may be what shows that the truth is known so far.
			found = append(found, finding{ErrBrokeNoStale, what, key, max(at, lastOf(records, r)), about})
		}
	}
	return found
}

func version(revision int64, there bool) string {
	if !there {
		return "not at all"
	}
	return fmt.Sprintf("as of %d", revision)
}

// lastOf is the place of the last record of a store's own history in r's lineage.
func lastOf(records []Record, r Record) int {
	for i := len(records) - 1; i >= 0; i-- {
		x := records[i]
		if (x.Kind == Base || x.Kind == Write || x.Kind == Followed) && x.Store == r.Store && x.Lineage == r.Lineage {
			return i
		}
	}
	return -1
}

// rows is what stood under a prefix at a revision.
func (s *store) rows(prefix string, revision int64) map[string]int64 {
	rows := map[string]int64{}
	for key, mod := range s.base.Rows {
		if strings.HasPrefix(key, prefix) {
			rows[key] = mod
		}
	}
	for _, w := range s.writes[:s.after(revision)] {
		switch {
		case !strings.HasPrefix(w.Key, prefix) || w.Revision <= s.base.Revision:
		case w.Deleted:
			delete(rows, w.Key)
		default:
			rows[w.Key] = w.Revision
		}
	}
	return rows
}
