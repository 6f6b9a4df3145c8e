// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"context"
	"time"
)

// maxRelist bounds how much rarer lists become that were asked for in vain.
const maxRelist = 64

// relisting asks for lists when claims changed, so that rows that were refused are judged again. A
// list costs as much as there are rows, so there is a least time between two; it doubles while
// lists change nothing, up to maxRelist times.
type relisting struct {
	least time.Duration
	asked chan struct{} // holds one token
}

func newRelisting(least time.Duration) relisting {
	return relisting{least: least, asked: make(chan struct{}, 1)}
}

// ask wants a list, unless nothing is refused: then there is nothing to gain.
func (r relisting) ask(faults func() int) {
	if faults() == 0 {
		return
	}
	select {
	case r.asked <- struct{}{}:
	default:
	}
}

// run passes on what is asked for until ctx ends. faults counts the rows that are refused now; a list
// that was asked for has judged them again before the least time is over, or did not help.
func (r relisting) run(ctx context.Context, faults func() int, list func()) error {
	for factor := time.Duration(1); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-r.asked:
		}
		before := faults()
		list()
		if !rest(ctx, r.least) {
			return nil
		}
		if faults() < before {
			factor = 1
			continue
		}
		factor = min(2*factor, maxRelist)
		if !rest(ctx, (factor-1)*r.least) {
			return nil
		}
	}
}

// rest waits, and says whether ctx goes on.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
