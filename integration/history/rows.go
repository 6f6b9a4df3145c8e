// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package history

import (
	"fmt"
	"time"
)

// row names a row, and place a row on a node.
type row struct{ store, prefix, key string }
type place struct {
	row
	node string
}

// checkRows compares what nodes have with what the owners want: nothing that lives goes, whatever
// happens to a store, and what its owner deleted goes within the limit.
func checkRows(records []Record, l Limits) []finding {
	alive := map[row]bool{}
	owned := map[row]bool{} // rows whose owner is in the history
	here := map[place]bool{}
	type debt struct{ since, due time.Time }
	owed := map[place]debt{}   // to go
	where := map[row][]place{} // the places where a row ever was
	broken := map[string]int{} // faults that are open, by store
	var found []finding
	blame := func(at int, p place, format string, args ...any) {
		what := fmt.Sprintf("%s %s of %s ", p.prefix, p.key, p.store) + fmt.Sprintf(format, args...)
		found = append(found, finding{ErrBrokeMassDelete, what, p.key, at, func(x Record) bool {
			switch x.Kind {
			case Born, Died:
				return row{x.Store, x.Prefix, x.Key} == p.row
			case Here, Gone:
				return place{row{x.Store, x.Prefix, x.Key}, x.By} == p
			case Fault, Healed:
				return x.Store == p.store || x.Store == ""
			}
			return x.At.Equal(records[at].At) // it shows that time went on
		}})
	}
	late := func(at int, now time.Time) {
		for p, d := range owed {
			if now.After(d.due) && broken[p.store] == 0 && broken[""] == 0 {
				delete(owed, p)
				blame(at, p, "is still on %s %v after its owner deleted it at %s", p.node, l.InForce, d.since.UTC().Format("15:04:05.000000"))
			}
		}
	}
	for at, r := range records {
		id := row{r.Store, r.Prefix, r.Key}
		p := place{id, r.By}
		if len(owed) > 0 {
			late(at, r.At)
		}
		switch r.Kind {
		case Born:
			alive[id], owned[id] = true, true
			for _, p := range where[id] {
				delete(owed, p)
			}
		case Died:
			alive[id], owned[id] = false, true
			for _, p := range where[id] {
				if here[p] {
					owed[p] = debt{r.At, r.At.Add(l.InForce)}
				}
			}
		case Here:
			if _, known := here[p]; !known {
				where[id] = append(where[id], p)
			}
			here[p] = true
			// One that comes late goes again; a store that is behind may bring it back.
			if owned[id] && !alive[id] {
				owed[p] = debt{r.At, r.At.Add(l.InForce)}
			}
		case Gone:
			if alive[id] && here[p] {
				blame(at, p, "left %s at %s and lives", r.By, r.At.UTC().Format("15:04:05.000000"))
			}
			here[p] = false
			delete(owed, p)
		case Fault:
			broken[r.Store]++
		case Healed:
			broken[r.Store] = max(0, broken[r.Store]-1)
			for p, d := range owed {
				if p.store == r.Store || r.Store == "" {
					d.due = r.At.Add(l.InForce)
					owed[p] = d
				}
			}
		}
	}
	return found
}
