// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package history

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// watch is what is known of one watch at a place in the history.
type watch struct {
	lineage   string
	floor     int64 // listed at this revision: everything up to it is known
	last      int64 // the highest revision it told of
	event     int64 // the revision of its last event
	next      int   // the first write of the lineage that was not compared yet
	delivered map[change]bool
}

type change struct {
	revision int64
	key      string
}

// checkWatches judges what each watch delivered: ordered, no gap, no duplicate.
func checkWatches(records []Record, _ Limits) []finding {
	truth := storesOf(records)
	watches := map[string]*watch{}
	var found []finding
	for at, r := range records {
		switch r.Kind {
		case Listed, Event, Confirmed:
		default:
			continue
		}
		id := r.By + "\x00" + r.Store + "\x00" + r.Prefix
		w := watches[id]
		blame := func(broke error, key, format string, args ...any) {
			about := func(x Record) bool {
				switch x.Kind {
				case Base, Followed:
					return x.Store == r.Store && x.Lineage == r.Lineage
				case Write:
					return x.Store == r.Store && x.Lineage == r.Lineage && x.Key == key
				case Listed, Event, Confirmed:
					return x.By == r.By && x.Store == r.Store && x.Prefix == r.Prefix
				}
				return false
			}
			what := fmt.Sprintf("the watch of %s on %s in %s ", r.By, r.Prefix, r.Store) + fmt.Sprintf(format, args...)
			found = append(found, finding{broke, what, key, at, about})
		}
		if r.Kind == Listed {
			if w != nil && w.lineage == r.Lineage && r.Revision < w.last {
				blame(ErrBrokeOrdered, "", "lists at revision %d after it told of %d", r.Revision, w.last)
			}
			watches[id] = &watch{
				lineage: r.Lineage, floor: r.Revision, last: r.Revision,
				next: truth[lineage{r.Store, r.Lineage}].after(r.Revision), delivered: map[change]bool{},
			}
			continue
		}
		if w == nil {
			continue // its beginning is not in the history
		}
		if r.Lineage != w.lineage && truth[lineage{r.Store, w.lineage}].goesOn(truth[lineage{r.Store, r.Lineage}], w.last) {
			w.lineage, w.next = r.Lineage, truth[lineage{r.Store, r.Lineage}].after(w.last)
		}
		if r.Lineage != w.lineage {
			blame(ErrBrokeNoGap, r.Key, "resumes over lineage %s, and had listed lineage %s", r.Lineage, w.lineage)
			delete(watches, id)
			continue
		}
		through := r.Revision
		if r.Kind == Event {
			c := change{r.Revision, r.Key}
			switch {
			case r.Revision <= w.floor:
				blame(ErrBrokeNoDuplicate, r.Key, "delivers %s at revision %d, which the list at %d had", r.Key, r.Revision, w.floor)
			case w.delivered[c]:
				blame(ErrBrokeNoDuplicate, r.Key, "delivers %s at revision %d twice", r.Key, r.Revision)
			case r.Revision < w.last && r.Revision < w.event:
				blame(ErrBrokeOrdered, r.Key, "delivers revision %d after %d", r.Revision, w.event)
			case r.Revision <= w.last && r.Revision != w.event:
				blame(ErrBrokeOrdered, r.Key, "delivers revision %d after it confirmed %d", r.Revision, w.last)
			}
			w.delivered[c] = true
			w.event = max(w.event, r.Revision)
			// More of the same revision may follow.
			through = r.Revision - 1
		} else if r.Revision < w.last {
			blame(ErrBrokeOrdered, "", "confirms revision %d after it told of %d", r.Revision, w.last)
		}
		w.last = max(w.last, r.Revision)
		s := truth[lineage{r.Store, r.Lineage}]
		for s != nil && w.next < len(s.writes) && s.writes[w.next].Revision <= through {
			wr := s.writes[w.next]
			w.next++
			if strings.HasPrefix(wr.Key, r.Prefix) && !w.delivered[change{wr.Revision, wr.Key}] {
				blame(ErrBrokeNoGap, wr.Key, "misses %s at revision %d", wr.Key, wr.Revision)
			}
		}
	}
	return found
}

// lineage names one life of one store.
type lineage struct{ store, name string }

// store is the true history of one life of a store.
type store struct {
	base     *Record
	writes   []Record // after the base, by revision
	followed int64    // the writes are all there up to this revision
}

// goesOn says whether another life of a store has the history that a watch of this one knew, up to a
// revision: it was rolled back, not so far, and the watch misses nothing. Of a store that began anew no row
// is as old and the same.
func (s *store) goesOn(other *store, revision int64) bool {
	if s == nil || other == nil || revision > other.base.Revision {
		return false
	}
	known, shared := s.rows("", max(revision, s.base.Revision)), 0
	for key, mod := range other.base.Rows {
		switch {
		case mod > revision:
		case known[key] == mod:
			shared++
		case revision >= s.base.Revision: // else it may have been written anew since
			return false
		}
	}
	return shared > 0
}

// after is the place of the first write above a revision.
func (s *store) after(revision int64) int {
	if s == nil {
		return 0
	}
	at, _ := slices.BinarySearchFunc(s.writes, revision+1, func(r Record, want int64) int { return cmp.Compare(r.Revision, want) })
	return at
}

// storesOf collects the true histories. A lineage of which the base is not there is left out: nobody
// knows what stood in it.
func storesOf(records []Record) map[lineage]*store {
	all := map[lineage]*store{}
	of := func(r Record) *store {
		id := lineage{r.Store, r.Lineage}
		if all[id] == nil {
			all[id] = &store{}
		}
		return all[id]
	}
	for _, r := range records {
		switch r.Kind {
		case Base:
			s := of(r)
			s.base, s.followed = &r, max(s.followed, r.Revision)
		case Write:
			s := of(r)
			s.writes = append(s.writes, r)
			s.followed = max(s.followed, r.Revision)
		case Followed:
			s := of(r)
			s.followed = max(s.followed, r.Revision)
		}
	}
	for id, s := range all {
		if s.base == nil {
			delete(all, id)
			continue
		}
		slices.SortStableFunc(s.writes, func(a, b Record) int { return cmp.Compare(a.Revision, b.Revision) })
	}
	return all
}
