// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"errors"
	"time"
)

// run is one [Reconciler.Run]: what only its goroutine touches.
type run[K comparable, V any] struct {
	*Reconciler[K, V]
	cursor *Cursor[K, V]

	walk        *walker[K, V] // the refresh that is under way
	refreshAt   time.Time
	wantPrune   bool
	pruneAt     time.Time
	pruneFailed int // times in a row
}

func (r *run[K, V]) begin() {
	r.wantPrune = true
	r.refreshAt = time.Now().Add(r.cfg.RefreshInterval)
	r.mu.Lock()
	defer r.mu.Unlock()
	// The cursor delivers every row again, and what an earlier run could not delete is pruned.
	r.failed = failures[K]{}
	r.handled = 0
	r.pruned, r.pruneErr = time.Time{}, nil
}

func (r *run[K, V]) close() {
	r.cursor.Close()
	if r.walk != nil {
		r.walk.close()
	}
}

// changes applies the oldest changes of the table.
func (r *run[K, V]) changes(ctx context.Context) {
	changes, through := r.cursor.advance(r.cfg.BatchSize)
	var rows []Row[K, V]
	var gone []deletion[K]
	for _, c := range changes {
		if c.Deleted {
			gone = append(gone, deletion[K]{c.Key, c.Revision})
		} else {
			rows = append(rows, c.Row)
		}
	}
	r.delete(ctx, gone)
	r.update(ctx, rows)
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.handled != through {
		r.handled = through
		r.progressLocked()
	}
}

// retries tries again what failed and is due, in calls of its own: what fails again and again must
// not share its call with what is fresh.
func (r *run[K, V]) retries(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	due := r.failed.due(time.Now(), r.cfg.BatchSize)
	r.mu.Unlock()
	var rows []Row[K, V]
	var gone []deletion[K]
	var moot []K
	for _, f := range due {
		row, ok := r.table.Get(f.key)
		switch {
		case f.deleted == ok: // put again or deleted since: the cursor has that change yet to deliver
			moot = append(moot, f.key)
		case f.deleted:
			gone = append(gone, deletion[K]{f.key, f.revision})
		default:
			rows = append(rows, row)
		}
	}
	r.mu.Lock()
	for _, k := range moot {
		r.failed.remove(k)
	}
	r.mu.Unlock()
	r.delete(ctx, gone)
	r.update(ctx, rows)
}

// refresh gives a batch of the rows to Update once more when it is time for that.
func (r *run[K, V]) refresh(ctx context.Context) {
	if r.cfg.RefreshInterval == 0 || ctx.Err() != nil {
		return
	}
	if r.walk == nil {
		if time.Now().Before(r.refreshAt) {
			return
		}
		r.walk = r.table.walk()
	}
	rows := r.walk.next(r.cfg.BatchSize)
	if len(rows) > 0 {
		r.update(ctx, r.settled(rows))
		return
	}
	r.walk.close()
	r.walk = nil
	r.refreshAt = time.Now().Add(r.cfg.RefreshInterval)
	r.wantPrune = true
}

// settled leaves out the rows whose turn comes otherwise: by their backoff or by the cursor. What
// the cursor has not delivered must not be applied before it, for if such a row goes at once, the
// cursor delivers no deletion either.
func (r *run[K, V]) settled(rows []Row[K, V]) []Row[K, V] {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := rows[:0]
	for _, row := range rows {
		if row.Revision <= r.handled && r.failed.byKey[row.Key] == nil {
			out = append(out, row)
		}
	}
	return out
}

// prune removes from the outside what the table does not want, once nothing can be missing from it.
func (r *run[K, V]) prune(ctx context.Context) {
	if !r.wantPrune || ctx.Err() != nil || time.Now().Before(r.pruneAt) || !r.cursor.Synced() {
		return
	}
	err := r.ops.Prune(ctx, func(k K) (v V, ok bool) {
		row, ok := r.table.Get(k)
		return row.Value, ok
	})
	now := time.Now()
	if err != nil {
		if ctx.Err() != nil {
			return
		}
		r.pruneFailed++
		r.pruneAt = now.Add(r.backoff(r.pruneFailed))
		if r.pruneFailed == 1 {
			r.log.Warn("prune failed", "reconciler", r.cfg.Name, "error", err)
		}
	} else {
		r.wantPrune, r.pruneFailed = false, 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pruneErr = err
	if err == nil {
		r.pruned = now
		r.failed.hasten(now) // there may be room now for what found none
	}
	r.progressLocked()
}

// wait returns when there may be something to do. An error is one of the cursor, not of ctx.
func (r *run[K, V]) wait(ctx context.Context) error {
	if r.walk != nil {
		return nil
	}
	until, ok := r.nextTime()
	waiting := ctx
	if ok {
		var cancel context.CancelFunc
		waiting, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	err := r.cursor.Wait(waiting)
	if errors.Is(err, errClosed) {
		return err
	}
	return nil
}

// nextTime returns when something is due without the table changing.
func (r *run[K, V]) nextTime() (next time.Time, ok bool) {
	sooner := func(t time.Time) {
		if !ok || t.Before(next) {
			next, ok = t, true
		}
	}
	r.mu.Lock()
	if f := r.failed.first(); f != nil {
		sooner(f.due)
	}
	r.mu.Unlock()
	if r.cfg.RefreshInterval > 0 {
		sooner(r.refreshAt)
	}
	if r.wantPrune && r.cursor.Synced() {
		sooner(r.pruneAt)
	}
	return next, ok
}

// deletion is a key that is gone, with the revision of that.
type deletion[K comparable] struct {
	key      K
	revision uint64
}

func (r *run[K, V]) delete(ctx context.Context, gone []deletion[K]) {
	if len(gone) == 0 || ctx.Err() != nil {
		return
	}
	keys := make([]K, len(gone))
	for i, d := range gone {
		keys[i] = d.key
	}
	errs := r.ops.Delete(ctx, keys)
	now := time.Now()
	r.settle(ctx, len(gone), func(i int) (failure[K], bool) {
		d := gone[i]
		err := errs[d.key]
		return failure[K]{key: d.key, revision: d.revision, deleted: true, err: err, at: now}, err != nil
	})
}

func (r *run[K, V]) update(ctx context.Context, rows []Row[K, V]) {
	if len(rows) == 0 || ctx.Err() != nil {
		return
	}
	errs := r.ops.Update(ctx, rows)
	now := time.Now()
	r.table.setDone(r.done, rows, errs, now)
	r.settle(ctx, len(rows), func(i int) (failure[K], bool) {
		row := &rows[i]
		err := errs[row.Key]
		return failure[K]{key: row.Key, revision: row.Revision, err: err, at: now}, err != nil
	})
}

// settle notes the outcomes of n attempts. Those that a shutdown cut short count for nothing.
func (r *run[K, V]) settle(ctx context.Context, n int, outcome func(i int) (failure[K], bool)) {
	stopped := ctx.Err() != nil
	r.mu.Lock()
	before := len(r.failed.byKey)
	var example failure[K]
	for i := range n {
		f, failed := outcome(i)
		switch {
		case !failed:
			r.failed.remove(f.key)
		case !stopped:
			r.failed.add(f, r.backoff)
			example = f
		}
	}
	after := len(r.failed.byKey)
	r.progressLocked()
	r.mu.Unlock()
	switch {
	case before == 0 && after > 0:
		r.log.Warn("rows not applied", "reconciler", r.cfg.Name, "rows", after, "key", example.key, "error", example.err)
	case before > 0 && after == 0:
		r.log.Info("all rows applied", "reconciler", r.cfg.Name)
	}
}
