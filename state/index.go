// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import "iter"

// Index finds the keys of a table's rows by terms derived from them, such as their label pairs or
// their cluster. It is fed with the changes of a [Cursor] and belongs to one goroutine, like the
// derivation it serves.
//
// A row costs its key twice, and 12 bytes beside the term for each of its terms: a change costs its
// own terms and not the number of rows they find.
type Index[T, K comparable, V any] struct {
	terms   func(K, V) iter.Seq[T]
	number  map[K]uint32
	entries []indexed[T, K]
	free    []uint32
	byTerm  map[T]*posting
}

// indexed is one row: its key, and where it stands in the posting of each of its terms.
type indexed[T, K comparable] struct {
	key  K
	refs []indexRef[T]
}

type indexRef[T comparable] struct {
	term T
	at   uint32 // index into posting.rows
}

// posting is the rows of one term in no order, each with the place in its refs that points here.
type posting struct {
	rows []postingRow
}

type postingRow struct {
	number uint32
	ref    uint32
}

// NewIndex returns an empty index. terms yields what a row is found by; a term yielded twice counts
// once. It must give the same terms for the same row each time.
func NewIndex[T, K comparable, V any](terms func(K, V) iter.Seq[T]) *Index[T, K, V] {
	return &Index[T, K, V]{terms: terms, number: make(map[K]uint32), byTerm: make(map[T]*posting)}
}

// Apply takes changes in.
func (x *Index[T, K, V]) Apply(changes []Change[K, V]) {
	for _, c := range changes {
		if c.Deleted {
			x.Delete(c.Key)
		} else {
			x.Put(c.Key, c.Value)
		}
	}
}

// Put enters a row, or enters it anew with its present value.
func (x *Index[T, K, V]) Put(k K, v V) {
	n, ok := x.number[k]
	if ok {
		x.unpost(n)
	} else {
		n = x.take(k)
	}
	e := &x.entries[n]
	for term := range x.terms(k, v) {
		if e.has(term) {
			continue
		}
		p := x.byTerm[term]
		if p == nil {
			p = &posting{}
			x.byTerm[term] = p
		}
		e.refs = append(e.refs, indexRef[T]{term: term, at: uint32(len(p.rows))})
		p.rows = append(p.rows, postingRow{number: n, ref: uint32(len(e.refs) - 1)})
	}
}

// Delete forgets the row of k.
func (x *Index[T, K, V]) Delete(k K) {
	n, ok := x.number[k]
	if !ok {
		return
	}
	x.unpost(n)
	delete(x.number, k)
	x.entries[n] = indexed[T, K]{}
	x.free = append(x.free, n)
}

// Keys returns the keys found by term, in no order. The index must not change during the walk.
func (x *Index[T, K, V]) Keys(term T) iter.Seq[K] {
	return func(yield func(K) bool) {
		p := x.byTerm[term]
		if p == nil {
			return
		}
		for _, r := range p.rows {
			if !yield(x.entries[r.number].key) {
				return
			}
		}
	}
}

// Count returns the number of keys found by term: of several terms that must all hold, the one
// with the fewest keys is the one to walk.
func (x *Index[T, K, V]) Count(term T) int {
	if p := x.byTerm[term]; p != nil {
		return len(p.rows)
	}
	return 0
}

// Has says whether the row of k is found by term.
func (x *Index[T, K, V]) Has(term T, k K) bool {
	n, ok := x.number[k]
	return ok && x.entries[n].has(term)
}

// Len returns the number of rows.
func (x *Index[T, K, V]) Len() int { return len(x.number) }

// Terms returns all terms that find something, in no order.
func (x *Index[T, K, V]) Terms() iter.Seq[T] {
	return func(yield func(T) bool) {
		for term := range x.byTerm {
			if !yield(term) {
				return
			}
		}
	}
}

func (e *indexed[T, K]) has(term T) bool {
	for _, r := range e.refs {
		if r.term == term {
			return true
		}
	}
	return false
}

func (x *Index[T, K, V]) take(k K) uint32 {
	var n uint32
	if last := len(x.free) - 1; last >= 0 {
		n = x.free[last]
		x.free = x.free[:last]
	} else {
		n = uint32(len(x.entries))
		x.entries = append(x.entries, indexed[T, K]{})
	}
	x.entries[n].key = k
	x.number[k] = n
	return n
}

// unpost takes a row out of its postings. The last row of each moves into its place.
func (x *Index[T, K, V]) unpost(n uint32) {
	e := &x.entries[n]
	for _, ref := range e.refs {
		p := x.byTerm[ref.term]
		last := p.rows[len(p.rows)-1]
		p.rows[ref.at] = last
		x.entries[last.number].refs[last.ref].at = ref.at
		p.rows = p.rows[:len(p.rows)-1]
		if len(p.rows) == 0 {
			delete(x.byTerm, ref.term)
		}
	}
	clear(e.refs)
	e.refs = e.refs[:0]
}
