// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// failure is a row that could not be applied, or a deletion.
type failure[K comparable] struct {
	key      K
	revision uint64 // of what was tried
	deleted  bool
	attempts int // failed ones in a row
	err      error
	at       time.Time // of the last attempt
	due      time.Time // of the next
	place    int       // in failures.order
}

// failures holds them by key and by the time they are due.
type failures[K comparable] struct {
	byKey map[K]*failure[K]
	order dueOrder[K]
}

// add notes a failed attempt, which counts on if the same change has failed before.
func (fs *failures[K]) add(f failure[K], backoff func(attempts int) time.Duration) {
	old := fs.byKey[f.key]
	if old != nil {
		f.place = old.place
		if old.revision == f.revision {
			f.attempts = old.attempts
		}
	}
	f.attempts++
	f.due = f.at.Add(backoff(f.attempts))
	if old != nil {
		*old = f
		heap.Fix(&fs.order, f.place)
		return
	}
	if fs.byKey == nil {
		fs.byKey = make(map[K]*failure[K])
	}
	fs.byKey[f.key] = &f
	heap.Push(&fs.order, &f)
}

func (fs *failures[K]) remove(k K) {
	if f, ok := fs.byKey[k]; ok {
		heap.Remove(&fs.order, f.place)
		delete(fs.byKey, k)
	}
}

// first returns the failure that is due first, nil if there is none.
func (fs *failures[K]) first() *failure[K] {
	if len(fs.order) == 0 {
		return nil
	}
	return fs.order[0]
}

// due returns up to limit failures that are due now. They stay until add or remove.
func (fs *failures[K]) due(now time.Time, limit int) []failure[K] {
	var out []failure[K]
	var taken []*failure[K]
	for len(out) < limit && len(fs.order) > 0 && !fs.order[0].due.After(now) {
		f := heap.Pop(&fs.order).(*failure[K])
		out = append(out, *f)
		taken = append(taken, f)
	}
	for _, f := range taken {
		heap.Push(&fs.order, f)
	}
	return out
}

// hasten makes all of them due now.
func (fs *failures[K]) hasten(now time.Time) {
	for _, f := range fs.order {
		f.due = now
	}
	heap.Init(&fs.order)
}

// dueOrder is a heap.
type dueOrder[K comparable] []*failure[K]

func (h dueOrder[K]) Len() int           { return len(h) }
func (h dueOrder[K]) Less(i, j int) bool { return h[i].due.Before(h[j].due) }

func (h dueOrder[K]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *dueOrder[K]) Push(x any) {
	f := x.(*failure[K])
	f.place = len(*h)
	*h = append(*h, f)
}

func (h *dueOrder[K]) Pop() any {
	last := len(*h) - 1
	f := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return f
}

// backoff returns how long to wait after the given number of failed attempts: low, doubled with
// each further one up to high, of which a random part of at most half is taken off, so that rows
// that failed together do not come back together.
func backoff(low, high time.Duration, attempts int) time.Duration {
	d := high
	if shift := attempts - 1; shift < 40 && low<<shift>>shift == low && low<<shift < high {
		d = low << shift
	}
	return d - rand.N(d/2+1)
}
