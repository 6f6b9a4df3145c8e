// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrHolding means that a label set needs a number that is new, and that none is given out while the
// store is on hold: who the set's number belonged to before is what the hold is about.
var ErrHolding = errors.New("the store is on hold and the label set has no number")

// Wait is a label set whose users wait for the end of a hold.
type Wait struct {
	Labels  string
	Since   time.Time
	Waiters int
}

// Waiting returns the label sets that wait for the end of a hold, the oldest first.
func (a *Allocator) Waiting() []Wait {
	a.mu.Lock()
	waits := make([]Wait, 0, len(a.waits))
	for _, w := range a.waits {
		waits = append(waits, *w)
	}
	a.mu.Unlock()
	slices.SortFunc(waits, func(x, y Wait) int {
		if c := x.Since.Compare(y.Since); c != 0 {
			return c
		}
		return strings.Compare(x.Labels, y.Labels)
	})
	return waits
}

// holding tells whether the store is on hold now, and returns a channel that is closed when that
// changes: nil if it never does.
func (a *Allocator) holding() (bool, <-chan struct{}) {
	if a.cfg.Holding == nil {
		return false, nil
	}
	return a.cfg.Holding()
}

// followHold notes all sets when a hold begins or ends: what was deleted by hand is seen by no other
// sign while the mirror keeps it.
func (a *Allocator) followHold(ctx context.Context) error {
	for {
		_, changed := a.holding()
		select {
		case <-changed:
			a.settleHeld()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// waitReady waits until the mirror can be asked: it has synced, or the store is on hold, where it
// shows the last that is known.
func (a *Allocator) waitReady(ctx context.Context) error {
	for {
		held, changed := a.holding()
		if held {
			return nil
		}
		select {
		case <-a.known.synced:
			return nil
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// waitHold waits until a set that was refused with ErrHolding may be tried again: the hold ended, or
// the mirror changed. seen is the mirror's channel from before the refusal.
func (a *Allocator) waitHold(ctx context.Context, text string, seen <-chan struct{}) error {
	a.mu.Lock()
	w := a.waits[text]
	if w == nil {
		w = &Wait{Labels: text, Since: time.Now()}
		a.waits[text] = w
	}
	w.Waiters++
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if w.Waiters--; w.Waiters == 0 {
			delete(a.waits, text)
		}
	}()
	for {
		held, changed := a.holding()
		if !held {
			return nil
		}
		select {
		case <-changed:
		case <-seen:
			// Whatever it was: most changes are of other sets, and asking costs nothing while
			// this one has no number in the mirror.
			if a.known.of(text) != Unknown {
				return nil
			}
			seen = a.known.changes()
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", ctx.Err(), ErrHolding)
		}
	}
}
