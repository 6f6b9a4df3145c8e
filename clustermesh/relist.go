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

// run passes on what is asked for until ctx ends. faults counts the rows that are refused now.
func (r relisting) run(ctx context.Context, faults func() int, list func()) error {
	before := 0 // refused when the last list was asked for
	for factor := time.Duration(1); ; {
		rest := time.NewTimer(factor * r.least)
		select {
		case <-ctx.Done():
			rest.Stop()
			return nil
		case <-rest.C:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.asked:
		}
		now := faults()
		if now < before {
			factor = 1
		} else {
			factor = min(2*factor, maxRelist)
		}
		before = now
		list()
	}
}
