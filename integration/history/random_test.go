// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package history

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// simulation makes histories of a store that is wiped now and then, two watches, nodes, allocators
// and clients, all of which do what they should.
type simulation struct {
	*rand.Rand
	now     time.Time
	records []Record
	life    int
	rev     int64
	rows    map[string]int64
	pending map[string][]Record // writes that a watch has not delivered, by who watches
	alive   map[string]bool
	uses    map[string]uint32 // by → number of its label set
	message int
}

// How much the tests simulate: with three times as much they find nothing more.
const (
	histories = 12
	steps     = 150
)

func watchers() []string { return []string{"n1", "n2"} }

func simulate(seed uint64, doing int) []Record {
	s := &simulation{
		Rand: rand.New(rand.NewPCG(seed, 1)), now: noon, rows: map[string]int64{"ip/a": 1},
		pending: map[string][]Record{}, alive: map[string]bool{}, uses: map[string]uint32{}, rev: 5,
	}
	s.wiped()
	doings := []func(){s.write, s.write, s.write, s.deliver, s.deliver, s.deliver, s.confirm, s.table, s.relist, s.ownRow, s.ownRow, s.use, s.connect, s.say}
	for range doing {
		if s.IntN(150) == 0 {
			s.wiped()
			continue
		}
		doings[s.IntN(len(doings))]()
	}
	s.add(Record{Kind: Followed, Store: "east", Lineage: s.lineage(), Revision: s.rev})
	return s.records
}

func (s *simulation) lineage() string { return fmt.Sprint("life", s.life) }

func (s *simulation) add(r Record) {
	s.now = s.now.Add(time.Duration(s.IntN(1000)) * time.Millisecond)
	r.At = s.now
	s.records = append(s.records, r)
}

// wiped begins another life of the store: it is empty, and everybody lists it. What lives stays where
// it is.
func (s *simulation) wiped() {
	if s.life > 0 {
		s.add(Record{Kind: Fault, Store: "east", Name: "wiped"})
		s.add(Record{Kind: Followed, Store: "east", Lineage: s.lineage(), Revision: s.rev})
		s.rows, s.rev = map[string]int64{}, int64(s.IntN(10))
	}
	s.life++
	s.add(Record{Kind: Base, Store: "east", Lineage: s.lineage(), Revision: s.rev, Rows: maps.Clone(s.rows)})
	for _, by := range watchers() {
		s.list(by)
	}
	if s.life > 1 {
		s.add(Record{Kind: Healed, Store: "east", Name: "wiped"})
	}
}

func (s *simulation) watch(kind Kind, by string, r Record) Record {
	return Record{
		Kind: kind, By: by, Store: "east", Lineage: s.lineage(), Prefix: "ip/",
		Revision: r.Revision, Key: r.Key, Deleted: r.Deleted, Rows: r.Rows,
	}
}

func (s *simulation) list(by string) {
	s.pending[by] = nil
	s.add(s.watch(Listed, by, Record{Revision: s.rev, Rows: maps.Clone(s.rows)}))
}

func (s *simulation) relist() { s.list(watchers()[s.IntN(2)]) }

func (s *simulation) write() {
	s.rev++
	for _, key := range []string{"ip/a", "ip/b", "ip/c"}[:1+s.IntN(3)] {
		r := Record{Kind: Write, Store: "east", Lineage: s.lineage(), Revision: s.rev, Key: key, Deleted: s.IntN(4) == 0}
		if r.Deleted {
			delete(s.rows, key)
		} else {
			s.rows[key] = s.rev
		}
		s.add(r)
		for _, by := range watchers() {
			s.pending[by] = append(s.pending[by], r)
		}
	}
}

func (s *simulation) deliver() {
	by := watchers()[s.IntN(2)]
	for range min(len(s.pending[by]), 1+s.IntN(4)) {
		s.add(s.watch(Event, by, s.pending[by][0]))
		s.pending[by] = s.pending[by][1:]
	}
}

func (s *simulation) confirm() {
	by := watchers()[s.IntN(2)]
	for _, r := range s.pending[by] {
		s.add(s.watch(Event, by, r))
	}
	s.pending[by] = nil
	s.add(s.watch(Confirmed, by, Record{Revision: s.rev}))
}

func (s *simulation) table() {
	s.add(s.watch(Table, watchers()[s.IntN(2)], Record{Revision: s.rev, Rows: maps.Clone(s.rows)}))
}

// ownRow lets a row of an owner begin or end, on both nodes.
func (s *simulation) ownRow() {
	key := fmt.Sprint("10.1.1.", s.IntN(4))
	id := Record{Store: "east", Prefix: "ips", Key: key}
	say := func(kind Kind, by string) {
		r := id
		r.Kind, r.By = kind, by
		s.add(r)
	}
	kinds := [2]Kind{Born, Here}
	if s.alive[key] {
		kinds = [2]Kind{Died, Gone}
	}
	s.alive[key] = !s.alive[key]
	say(kinds[0], "owner")
	for _, by := range watchers() {
		say(kinds[1], by)
	}
}

func (s *simulation) use() {
	by, set := watchers()[s.IntN(2)], s.IntN(3)
	r := Record{Kind: Uses, By: by, Store: "east", Labels: fmt.Sprint("app=", set), Number: uint32(100 + set)}
	id := r.By + r.Labels
	if _, is := s.uses[id]; is && s.IntN(2) == 0 {
		r.Kind = Frees
		delete(s.uses, id)
	} else {
		s.uses[id] = r.Number
	}
	s.add(r)
}

func (s *simulation) connect() {
	s.add(Record{Kind: Connect, By: "pod", To: "10.96.0.10:13", Answer: "east/web", Took: time.Millisecond})
}

func (s *simulation) say() {
	s.message++
	s.add(Record{Kind: Message, By: "pod", Session: 1, Message: s.message})
}

// mutation breaks one guarantee; mutate returns nil where the record does not lend itself.
type mutation struct {
	broke  error
	mutate func(rs []Record, i int) []Record
}

func mutations() map[string]mutation {
	return map[string]mutation{
		"event-lost": {ErrBrokeNoGap, func(rs []Record, i int) []Record {
			// It is missed only if the watch goes on in the same life.
			if rs[i].Kind != Event || !slices.ContainsFunc(rs[i+1:until(rs, i)], func(x Record) bool {
				return sameWatch(x, rs[i]) && (x.Kind == Confirmed || x.Kind == Event && x.Revision > rs[i].Revision)
			}) {
				return nil
			}
			return slices.Delete(rs, i, i+1)
		}},
		"event-twice": {ErrBrokeNoDuplicate, func(rs []Record, i int) []Record {
			if rs[i].Kind != Event {
				return nil
			}
			return slices.Insert(rs, i+1, rs[i])
		}},
		"event-early": {ErrBrokeOrdered, func(rs []Record, i int) []Record {
			if rs[i].Kind != Event {
				return nil
			}
			for j := i + 1; j < until(rs, i); j++ {
				if rs[j].Kind == Event && sameWatch(rs[i], rs[j]) && rs[j].Revision > rs[i].Revision {
					rs[i], rs[j] = rs[j], rs[i]
					return rs
				}
			}
			return nil
		}},
		"row-stale": {ErrBrokeNoStale, func(rs []Record, i int) []Record {
			if rs[i].Kind != Table {
				return nil
			}
			rs[i].Rows = maps.Clone(rs[i].Rows)
			rs[i].Rows["ip/a"] = 4711
			return rs
		}},
		"row-too-much": {ErrBrokeNoStale, func(rs []Record, i int) []Record {
			if rs[i].Kind != Listed {
				return nil
			}
			rs[i].Rows = maps.Clone(rs[i].Rows)
			rs[i].Rows["ip/z"] = heldByServer + 1
			return rs
		}},
		"row-removed": {ErrBrokeMassDelete, func(rs []Record, i int) []Record {
			if rs[i].Kind != Here {
				return nil
			}
			r := rs[i]
			r.Kind = Gone
			return slices.Insert(rs, i+1, r)
		}},
		"row-left": {ErrBrokeMassDelete, func(rs []Record, i int) []Record {
			if rs[i].Kind != Gone {
				return nil
			}
			r := rs[i]
			r.Kind, r.By = Born, "owner" // it must not be born again meanwhile
			if slices.ContainsFunc(rs[i:], func(x Record) bool { return x.Kind == Born && x.Key == r.Key }) ||
				rs[len(rs)-1].At.Before(r.At.Add(15*time.Second)) {
				return nil
			}
			// What happens to the store stops the clock.
			if slices.ContainsFunc(rs[i:], func(x Record) bool { return x.Kind == Fault || x.Kind == Healed }) {
				return nil
			}
			return slices.Delete(rs, i, i+1)
		}},
		"number-other": {ErrBrokeOneNumber, func(rs []Record, i int) []Record {
			if rs[i].Kind != Uses || i == 0 {
				return nil
			}
			// Somebody uses the labels already by another number.
			r := rs[i]
			r.By, r.Number = "n9", r.Number+50
			return slices.Insert(rs, i+1, r)
		}},
		"number-shared": {ErrBrokeOneNumber, func(rs []Record, i int) []Record {
			if rs[i].Kind != Uses {
				return nil
			}
			r := rs[i]
			r.By, r.Labels = "n9", "app=other"
			return slices.Insert(rs, i+1, r)
		}},
		"connect-failed": {ErrBrokeInvisible, func(rs []Record, i int) []Record {
			if rs[i].Kind != Connect {
				return nil
			}
			rs[i].Error = "refused"
			return rs
		}},
		"message-lost": {ErrBrokeInvisible, func(rs []Record, i int) []Record {
			later := func(x Record) bool { return x.Kind == Message }
			if rs[i].Kind != Message || rs[i].Message == 1 || !slices.ContainsFunc(rs[i+1:], later) {
				return nil
			}
			return slices.Delete(rs, i, i+1)
		}},
	}
}

func sameWatch(a, b Record) bool {
	return a.By == b.By && a.Store == b.Store && a.Prefix == b.Prefix && a.Lineage == b.Lineage
}

// until is where the watch of an event lists again, or the history ends.
func until(rs []Record, i int) int {
	for j := i + 1; j < len(rs); j++ {
		if rs[j].Kind == Listed && rs[j].By == rs[i].By {
			return j
		}
	}
	return len(rs)
}

// TestCheck_Random: histories in which everybody did right are never blamed; with one thing wrong
// they are, by the right name, and a record less in the excerpt would show nothing.
func TestCheck_Random(t *testing.T) {
	mutations, applied := mutations(), map[string]int{}
	for seed := range uint64(histories) {
		records := simulate(seed, steps)
		for _, v := range Check(records, Limits{}) {
			t.Fatalf("seed %d: a right history is blamed: %v", seed, v)
		}
		for _, name := range slices.Sorted(maps.Keys(mutations)) {
			m := mutations[name]
			broken := mutate(rand.New(rand.NewPCG(seed, 2)), records, m.mutate)
			if broken == nil {
				continue
			}
			applied[name]++
			found := Check(broken, Limits{})
			at := slices.IndexFunc(found, func(v Violation) bool { return errors.Is(v, m.broke) })
			if at < 0 {
				t.Fatalf("seed %d, %s: not found; found %v", seed, name, found)
			}
			v := found[at]
			for i := range v.Excerpt {
				rest := slices.Concat(v.Excerpt[:i], v.Excerpt[i+1:])
				if slices.ContainsFunc(Check(rest, Limits{}), func(w Violation) bool { return w.What == v.What }) {
					t.Fatalf("seed %d, %s: record %d of the excerpt is not needed: %v", seed, name, i, v)
				}
			}
		}
	}
	// Every way to do wrong met histories that it could break.
	for name := range mutations {
		if applied[name] < 2 {
			t.Errorf("%s applied to %d histories of %d", name, applied[name], histories)
		}
	}
}

// mutate breaks one record, picked at random; nil if none lends itself.
func mutate(rnd *rand.Rand, records []Record, change func([]Record, int) []Record) []Record {
	for _, i := range rnd.Perm(len(records)) {
		if broken := change(slices.Clone(records), i); broken != nil {
			return broken
		}
	}
	return nil
}

func BenchmarkCheck(b *testing.B) {
	records := simulate(1, 100_000)
	b.ReportMetric(float64(len(records)), "records")
	for b.Loop() {
		if found := Check(records, Limits{}); len(found) > 0 {
			b.Fatal(found)
		}
	}
}
