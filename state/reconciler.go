// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Ops changes the outside. Each call may be repeated with the same rows (after a failure, after a
// restart, at a refresh) and must then change nothing, so an implementation compares with what is
// there. Calls come one after the other from the goroutine of [Reconciler.Run]; arguments belong to
// the caller again when the call returns, which it does soon after ctx ends. The ctx has no deadline:
// who talks to something that may hang sets one.
//
// The maps returned hold an error for each key that is not in force, and nothing for the others; nil
// if all are.
type Ops[K comparable, V any] interface {
	// Update makes the outside hold rows, at most ReconcilerConfig.BatchSize of them.
	Update(ctx context.Context, rows []Row[K, V]) map[K]error

	// Delete makes the outside not hold keys. A key that is not there is no error.
	Delete(ctx context.Context, keys []K) map[K]error

	// Prune deletes what the outside holds without being wanted: it asks want for each key there,
	// which answers from the table as it is at that moment. It is called when the table is synced
	// and every row has been tried: once, and again with each refresh.
	Prune(ctx context.Context, want func(K) (V, bool)) error
}

// ReconcilerConfig is what a [Reconciler] is made from. A field that is zero or negative takes the
// value of [DefaultReconcilerConfig].
type ReconcilerConfig struct {
	// Name stands in messages and status.
	Name string

	// BatchSize is the largest number of rows or keys given to one call.
	BatchSize int

	// MinBackoff and MaxBackoff bound the time between two attempts at one row. It doubles with
	// each failure.
	MinBackoff time.Duration
	MaxBackoff time.Duration

	// RefreshInterval is how long after the last refresh all rows are given to Update once more,
	// to repair what somebody else changed outside. Zero: never.
	RefreshInterval time.Duration
}

// DefaultReconcilerConfig returns batches of 1000, backoff from 100 ms to 30 s and no refresh.
func DefaultReconcilerConfig() ReconcilerConfig {
	return ReconcilerConfig{
		Name:       "reconciler",
		BatchSize:  1000,
		MinBackoff: 100 * time.Millisecond,
		MaxBackoff: 30 * time.Second,
	}
}

func (cfg ReconcilerConfig) withDefaults() ReconcilerConfig {
	def := DefaultReconcilerConfig()
	if cfg.Name == "" {
		cfg.Name = def.Name
	}
	if cfg.BatchSize <= 0 {
		cfg.BatchSize = def.BatchSize
	}
	if cfg.MinBackoff <= 0 {
		cfg.MinBackoff = def.MinBackoff
	}
	if cfg.MaxBackoff <= 0 {
		cfg.MaxBackoff = def.MaxBackoff
	}
	cfg.MaxBackoff = max(cfg.MaxBackoff, cfg.MinBackoff)
	cfg.RefreshInterval = max(cfg.RefreshInterval, 0)
	return cfg
}

// Reconciler makes the outside equal to a table.
//
// Changes are applied in batches in the order of the table, the deletions of a batch before its
// updates. A row that fails is tried again later, alone or with others that failed, and holds
// nobody up; a newer change of its key takes its place. Nothing is removed that was not deleted
// before the table is synced.
type Reconciler[K comparable, V any] struct {
	cfg   ReconcilerConfig
	table *Table[K, V]
	ops   Ops[K, V]
	log   *slog.Logger
	done  *column // guarded by table.mu

	mu       sync.Mutex
	failed   failures[K]
	handled  uint64
	pruned   time.Time
	pruneErr error
	progress chan struct{} // closed after each step, if somebody waits
}

// NewReconciler returns a reconciler of table that does nothing before Run. It lives as long as
// the table: its outcomes are kept beside the rows. A nil log discards.
func NewReconciler[K comparable, V any](cfg ReconcilerConfig, table *Table[K, V], ops Ops[K, V], log *slog.Logger) *Reconciler[K, V] {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Reconciler[K, V]{
		cfg: cfg.withDefaults(), table: table, ops: ops, log: log, done: table.addColumn(),
	}
}

// Run applies the table until ctx ends and then returns nil; an operation that has begun is waited
// for. Each Run begins with every row, and only one runs at a time.
func (r *Reconciler[K, V]) Run(ctx context.Context) error {
	run := run[K, V]{Reconciler: r, cursor: r.table.Cursor()}
	defer run.close()
	run.begin()
	for ctx.Err() == nil {
		run.changes(ctx)
		run.retries(ctx)
		run.refresh(ctx)
		run.prune(ctx)
		if err := run.wait(ctx); err != nil {
			return fmt.Errorf("%s: %w", r.cfg.Name, err)
		}
	}
	return nil
}

// backoff is the wait after the given number of failed attempts.
func (r *Reconciler[K, V]) backoff(attempts int) time.Duration {
	return backoff(r.cfg.MinBackoff, r.cfg.MaxBackoff, attempts)
}

// addColumn attaches a column to the table.
func (t *Table[K, V]) addColumn() *column {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := &column{}
	t.columns = append(t.columns, c)
	return c
}

// doneMark returns the revision of the row of k and its mark in a column.
func (t *Table[K, V]) doneMark(c *column, k K) (revision uint64, m doneMark, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	i := t.rows.find(t.rows.hashOf(k), k)
	if i == none || t.rows.at(i).state != slotLive {
		return 0, doneMark{}, false
	}
	return t.rows.at(i).revision, c.get(i), true
}

// setDone marks those of rows that did not fail.
func (t *Table[K, V]) setDone(c *column, rows []Row[K, V], failed map[K]error, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, row := range rows {
		if failed[row.Key] != nil {
			continue
		}
		if i := t.rows.find(t.rows.hashOf(row.Key), row.Key); i != none {
			c.set(i, doneMark{revision: row.Revision, at: at.UnixNano()})
		}
	}
}
