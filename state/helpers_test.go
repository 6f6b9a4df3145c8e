// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
)

var errRefused = errors.New("refused")

// outside is an Ops on a map, with faults.
type outside struct {
	mu      sync.Mutex
	rows    map[string]int
	refuse  map[string]bool // keys that fail
	prunes  int
	noPrune bool
	calls   []string                      // "update a b", "delete c", "prune"
	before  func(rows []Row[string, int]) // called first in Update
	enter   chan struct{}
	leave   chan struct{}
}

func newOutside() *outside {
	return &outside{rows: map[string]int{}, refuse: map[string]bool{}}
}

func (o *outside) Update(ctx context.Context, rows []Row[string, int]) map[string]error {
	if o.before != nil {
		o.before(rows)
	}
	if o.enter != nil {
		o.enter <- struct{}{}
		<-o.leave
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var errs map[string]error
	call := "update"
	for _, r := range rows {
		call += " " + r.Key
		if o.refuse[r.Key] {
			if errs == nil {
				errs = map[string]error{}
			}
			errs[r.Key] = errRefused
			continue
		}
		o.rows[r.Key] = r.Value
	}
	o.calls = append(o.calls, call)
	return errs
}

func (o *outside) Delete(ctx context.Context, keys []string) map[string]error {
	o.mu.Lock()
	defer o.mu.Unlock()
	errs := map[string]error{}
	call := "delete"
	for _, k := range keys {
		call += " " + k
		if o.refuse[k] {
			errs[k] = errRefused
			continue
		}
		delete(o.rows, k)
	}
	o.calls = append(o.calls, call)
	return errs
}

func (o *outside) Prune(ctx context.Context, want func(string) (int, bool)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls = append(o.calls, "prune")
	if o.noPrune {
		return errRefused
	}
	o.prunes++
	for _, k := range slices.Collect(maps.Keys(o.rows)) {
		if _, ok := want(k); !ok {
			delete(o.rows, k)
		}
	}
	return nil
}

func (o *outside) set(f func(o *outside)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f(o)
}

func (o *outside) has() map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.rows)
}

// took returns the calls made since it was last called.
func (o *outside) took() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	calls := o.calls
	o.calls = nil
	return calls
}
