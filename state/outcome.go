// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// Outcome is what became of a row outside.
type Outcome struct {
	// Revision is the table's revision of the row that was last tried, 0 if none was.
	Revision uint64

	// Done says that the outside holds the row as it is in the table now.
	Done bool

	// Deleted says that the row is gone from the table and its deletion outside failed.
	Deleted bool

	// Err is why the last attempt failed; nil if it did not, or none was made.
	Err error

	// Attempts is the number of failed attempts in a row.
	Attempts int

	// At is when the last attempt was made, zero if none was.
	At time.Time

	// Retry is when the next attempt is due after a failed one.
	Retry time.Time
}

// ReconcilerStatus sums a reconciler up.
type ReconcilerStatus struct {
	Name string

	// Handled is the revision up to which every change has been tried.
	Handled uint64

	// Failed is the number of rows and deletions whose last attempt failed.
	Failed int

	// Err is the error of the one that failed first of those due next, nil if none failed.
	Err error

	// Pruned is when what the table does not want was last removed; zero if never.
	Pruned time.Time

	// PruneErr is why the last prune failed.
	PruneErr error
}

// Status returns how far the reconciler is.
func (r *Reconciler[K, V]) Status() ReconcilerStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := ReconcilerStatus{
		Name: r.cfg.Name, Handled: r.handled, Failed: len(r.failed.byKey), Pruned: r.pruned, PruneErr: r.pruneErr,
	}
	if f := r.failed.first(); f != nil {
		s.Err = f.err
	}
	return s
}

// Outcome returns what became of the row of k. It is false for a key that is not in the table and
// whose deletion is not outstanding after a failure.
func (r *Reconciler[K, V]) Outcome(k K) (Outcome, bool) {
	revision, mark, ok := r.table.doneMark(r.done, k)
	r.mu.Lock()
	defer r.mu.Unlock()
	// A failure that the table has moved on from says nothing any more.
	if f := r.failed.byKey[k]; f != nil && f.deleted != ok {
		return Outcome{
			Revision: f.revision, Deleted: f.deleted, Err: f.err, Attempts: f.attempts, At: f.at, Retry: f.due,
		}, true
	}
	o := Outcome{Revision: mark.revision, Done: ok && mark.revision == revision}
	if mark.at != 0 {
		o.At = time.Unix(0, mark.at)
	}
	return o, ok
}

// Outcomes returns a walk over the outcomes of all rows, and of the deletions that failed, with
// the consistency of [Table.All].
func (r *Reconciler[K, V]) Outcomes() iter.Seq2[K, Outcome] {
	return func(yield func(K, Outcome) bool) {
		for row := range r.table.All() {
			if o, ok := r.Outcome(row.Key); ok && !o.Deleted && !yield(row.Key, o) {
				return
			}
		}
		for _, k := range r.failedDeletions() {
			if o, ok := r.Outcome(k); ok && o.Deleted && !yield(k, o) {
				return
			}
		}
	}
}

func (r *Reconciler[K, V]) failedDeletions() []K {
	r.mu.Lock()
	defer r.mu.Unlock()
	var keys []K
	for k, f := range r.failed.byKey {
		if f.deleted {
			keys = append(keys, k)
		}
	}
	return keys
}

// WaitDone returns when every change up to the given revision is in force outside. It is meant
// for tests and for commands that wait; the error names what is missing.
func (r *Reconciler[K, V]) WaitDone(ctx context.Context, revision uint64) error {
	err := r.await(ctx, func() bool {
		if r.handled < revision {
			return false
		}
		for _, f := range r.failed.byKey {
			if f.revision <= revision {
				return false
			}
		}
		return true
	})
	if err == nil {
		return nil
	}
	if s := r.Status(); s.Err != nil {
		return fmt.Errorf("%s: revision %d: at %d with %d failed, one with: %w", s.Name, revision, s.Handled, s.Failed, s.Err)
	}
	return fmt.Errorf("%s: revision %d: at %d: %w", r.cfg.Name, revision, r.Status().Handled, err)
}

// WaitPruned returns when the outside has been pruned since Run began.
func (r *Reconciler[K, V]) WaitPruned(ctx context.Context) error {
	if err := r.await(ctx, func() bool { return !r.pruned.IsZero() }); err != nil {
		if s := r.Status(); s.PruneErr != nil {
			return s.PruneErr
		}
		return fmt.Errorf("%s: prune: %w", r.cfg.Name, err)
	}
	return nil
}

// await returns when cond, which is called with mu held, is true.
func (r *Reconciler[K, V]) await(ctx context.Context, cond func() bool) error {
	for {
		r.mu.Lock()
		ok := cond()
		if r.progress == nil {
			r.progress = make(chan struct{})
		}
		progress := r.progress
		r.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-progress:
		}
	}
}

// progressLocked tells those who wait.
func (r *Reconciler[K, V]) progressLocked() {
	if r.progress != nil {
		close(r.progress)
		r.progress = nil
	}
}
