// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// WatchConfig says how a prefix is mirrored. Source is required; the rest has defaults.
type WatchConfig struct {
	// Source is what the rows are tagged with in the table.
	Source state.Source
	// PageSize is the number of keys per page of a list. Default DefaultPageSize.
	PageSize int
	// Gap is the number of missed revisions above which the prefix is listed rather than the
	// history replayed, which is a hundred times slower. Default 1000.
	Gap int64
	// Progress is how often the store is asked to confirm that nothing was missed. Default 10 s.
	Progress time.Duration
	// Silence is how long a connected store may say nothing before the connection is given up.
	// Default three times Progress.
	Silence time.Duration
	// MinBackoff and MaxBackoff bound the pause after an error, which a connection that comes back
	// ends. Defaults 50 ms and 5 s.
	MinBackoff, MaxBackoff time.Duration
	// Guard judges what is absent from the store, together with the other watches of the client.
	// Nil: what a list does not name is deleted.
	Guard *Guard
}

func (c WatchConfig) follow(prefix string) followConfig {
	f := followConfig{
		prefix:     prefix,
		pageSize:   c.PageSize,
		gap:        c.Gap,
		progress:   c.Progress,
		silence:    c.Silence,
		minBackoff: c.MinBackoff,
		maxBackoff: c.MaxBackoff,
	}
	if f.pageSize <= 0 {
		f.pageSize = DefaultPageSize
	}
	if f.gap <= 0 {
		f.gap = 1000
	}
	if f.progress <= 0 {
		f.progress = 10 * time.Second
	}
	if f.silence <= 0 {
		f.silence = 3 * f.progress
	}
	if f.minBackoff <= 0 {
		f.minBackoff = 50 * time.Millisecond
	}
	if f.maxBackoff <= 0 {
		f.maxBackoff = 5 * time.Second
	}
	return f
}

// maxRejected is the number of rejected keys that are shown; more are only counted, because a
// remote cluster decides how many there are.
const maxRejected = 1000

// Rejection is a key whose value did not validate. The row keeps the value it had before.
type Rejection struct {
	Key      string
	Reason   string
	Revision int64
	At       time.Time
}

// WatchStatus is what a watch knows about itself.
type WatchStatus struct {
	Prefix        string
	Connected     bool
	Synced        bool      // the prefix was listed at least once
	Revision      int64     // the table holds the prefix as of this revision …
	LastConfirmed time.Time // … and that was the newest at this time
	ClusterID     uint64
	Epoch         string
	Continuity    Continuity // of the last list or resumption
	Lists         uint64
	Resumes       uint64 // reconnects that replayed what was missed
	Rejected      uint64 // values refused since the start
	Rejections    []Rejection
	LastError     error // nil while connected
	LastErrorAt   time.Time
}

// Watch mirrors the rows of one kind from a store into a table, where they are tagged with a
// source. After a list the source is marked synced, and it stays synced while the store is away:
// the rows are then as old as the source's confirmation.
type Watch[K comparable, V any] struct {
	codec  schema.Codec[K, V]
	table  *state.Table[K, V]
	source state.Source
	log    *slog.Logger
	follow *follower
	taps   []sink
	copies *copies[K, V] // nil: nobody wants the bytes
	first  chan struct{} // closed by the first list

	mutter *rate.Limiter // log lines about rejections

	// Owned by Run.
	pending []row[K, V] // of the list in progress
	seen    map[string]struct{}
	aside   []row[K, V] // that an earlier process knew, until the first list
	asideAt time.Time   // when they were right

	owner func(K, V) string // nil: the kind of row decides
	hold  hold[K]           // rows that the store does not have

	mu       sync.Mutex
	rejected uint64
	bad      map[string]Rejection
}

type row[K comparable, V any] struct {
	key   K
	value state.Stamped[V]
	bytes []byte // as they stand in the store; nil where only the row is known
}

// NewWatch returns a watch of the codec's prefix.
func NewWatch[K comparable, V any](c *Client, codec schema.Codec[K, V], table *state.Table[K, V], cfg WatchConfig, log *slog.Logger) *Watch[K, V] {
	w := &Watch[K, V]{codec: codec, table: table, source: cfg.Source, log: log, first: make(chan struct{}), bad: map[string]Rejection{}}
	// How many bad values there are is up to the other side; the counter has them all.
	w.mutter = rate.NewLimiter(1, 20)
	w.follow = &follower{c: c, cfg: cfg.follow(codec.Prefix), sink: w, log: log, guard: cfg.Guard, again: make(chan struct{}, 1), hurry: make(chan struct{}, 1)}
	table.Expect(cfg.Source)
	return w
}

// Run mirrors until ctx ends. The rows stay in the table; whoever wants them gone drops the
// source.
func (w *Watch[K, V]) Run(ctx context.Context) error {
	if g := w.follow.guard; g != nil {
		w.inherit()
		defer g.enroll(w)()
		defer w.leave()
	}
	return w.follow.run(ctx)
}

// Listed returns a channel that is closed once the prefix was listed and its rows are in the table,
// whether the source could be marked synced or not.
func (w *Watch[K, V]) Listed() <-chan struct{} { return w.first }

// ListAgain asks for another list once the store is followed: values that the codec refused may pass
// now. One that is asked for before the last has begun is the same one.
func (w *Watch[K, V]) ListAgain() {
	select {
	case w.follow.again <- struct{}{}:
	default:
	}
}

// Status returns what the watch knows about itself.
func (w *Watch[K, V]) Status() WatchStatus {
	f := w.follow.status()
	w.mu.Lock()
	defer w.mu.Unlock()
	st := WatchStatus{
		Prefix:        w.codec.Prefix,
		Connected:     f.connected,
		Synced:        f.synced,
		Revision:      f.revision,
		LastConfirmed: f.confirmed,
		ClusterID:     f.clusterID,
		Epoch:         f.epoch,
		Continuity:    f.continuity,
		Lists:         f.lists,
		Resumes:       f.resumes,
		Rejected:      w.rejected,
		LastError:     f.lastError,
		LastErrorAt:   f.lastErrorAt,
	}
	for _, r := range w.bad {
		st.Rejections = append(st.Rejections, r)
	}
	return st
}

func (w *Watch[K, V]) page(kvs []KV, restart bool) {
	if restart {
		w.pending = w.pending[:0]
		w.seen = map[string]struct{}{}
	}
	for _, kv := range kvs {
		k, v, err := w.decode(kv)
		if err == nil {
			w.pending = append(w.pending, row[K, V]{k, state.Stamped[V]{Value: v, Origin: kv.ModRevision}, w.keep(kv.Value)})
			continue
		}
		w.reject(kv, err)
		w.seen[kv.Key] = struct{}{}
		if errors.Is(err, errKey) {
			continue
		}
		// What was believed before stays believed: the key exists.
		if old, ok := w.table.Get(k); ok && old.Source == w.source {
			w.pending = append(w.pending, row[K, V]{key: k, value: state.Stamped[V]{Value: old.Value, Origin: old.Origin}})
		}
	}
	for _, t := range w.taps {
		t.page(kvs, restart)
	}
}

func (w *Watch[K, V]) listed(ctx context.Context, revision int64, continuity Continuity) {
	expired, err := w.expiredBefore(ctx, revision, continuity)
	if err != nil {
		return // the rows stay as they are, the next list decides
	}
	w.hold.mu.Lock()
	held := w.keepLocked(revision, continuity, expired)
	w.nodesListed()
	put, deleted := w.table.Replace(w.source, revision, func(yield func(K, state.Stamped[V]) bool) {
		for _, r := range w.pending {
			if !yield(r.key, r.value) {
				return
			}
		}
	})
	w.hold.mu.Unlock()
	if w.copies != nil {
		w.copies.listed(w.pending, revision)
	}
	if g := w.follow.guard; g != nil {
		g.refresh()
	} else {
		w.table.MarkSynced(w.source)
		if w.copies != nil {
			w.copies.mark(false)
		}
	}
	w.log.Info("prefix listed", "prefix", w.codec.Prefix, "source", w.source, "revision", revision,
		"rows", len(w.pending), "held", held, "changed", put, "deleted", deleted, "continuity", continuity)
	w.pending = nil
	if !w.follow.status().synced {
		close(w.first)
	}
	w.mu.Lock()
	for key := range w.bad {
		if _, still := w.seen[key]; !still {
			delete(w.bad, key)
		}
	}
	w.mu.Unlock()
	w.seen = nil
	for _, t := range w.taps {
		t.listed(ctx, revision, continuity)
	}
}

// change is one event whose key is one of the codec's.
type change[K comparable, V any] struct {
	row[K, V]
	raw     string
	deleted bool
}

func (w *Watch[K, V]) events(ctx context.Context, evs []event) {
	changes := make([]change[K, V], 0, len(evs))
	for _, ev := range evs {
		c := change[K, V]{raw: ev.Key}
		var err error
		if ev.Deleted {
			c.deleted = true
			c.key, err = w.key(ev.Key)
		} else {
			c.key, c.value.Value, err = w.decode(ev.KV)
			c.bytes = w.keep(ev.Value)
		}
		switch {
		case err == nil:
			c.value.Origin = ev.ModRevision
			changes = append(changes, c)
			w.accept(ev.Key)
		case ev.Deleted:
			w.accept(ev.Key)
		default:
			w.reject(ev.KV, err)
		}
	}
	if !w.apply(ctx, changes) {
		return
	}
	if w.copies != nil {
		w.copies.changed(changes)
	}
	for _, t := range w.taps {
		t.events(ctx, evs)
	}
}

func (w *Watch[K, V]) confirmed(revision int64, at time.Time) {
	w.table.Confirm(w.source, at)
	for _, t := range w.taps {
		t.confirmed(revision, at)
	}
}

// errKey is a key that is not one of the codec's.
var errKey = errors.New("key")

func (w *Watch[K, V]) key(raw string) (K, error) {
	k, err := w.codec.ParseKey(strings.TrimPrefix(raw, w.codec.Prefix))
	if err != nil {
		return k, fmt.Errorf("%w: %w", errKey, err)
	}
	// Two spellings of one key would be one row that two keys fight over.
	if canonical := w.codec.Prefix + w.codec.FormatKey(k); canonical != raw {
		return k, fmt.Errorf("%w: it is written %s", errKey, canonical)
	}
	return k, nil
}

func (w *Watch[K, V]) decode(kv KV) (k K, v V, err error) {
	if k, err = w.key(kv.Key); err != nil {
		return k, v, err
	}
	v, err = w.codec.Decode(k, kv.Value)
	return k, v, err
}

// reject counts a value and remembers the reason. A key is logged when its reason changes.
func (w *Watch[K, V]) reject(kv KV, err error) {
	w.mu.Lock()
	w.rejected++
	old, known := w.bad[kv.Key]
	keep := known || len(w.bad) < maxRejected
	if keep {
		w.bad[kv.Key] = Rejection{Key: kv.Key, Reason: err.Error(), Revision: kv.ModRevision, At: time.Now()}
	}
	w.mu.Unlock()
	if keep && old.Reason != err.Error() && w.mutter.Allow() {
		w.log.Info("value rejected, the previous one stays", "key", kv.Key, "source", w.source, "error", err)
	}
}

func (w *Watch[K, V]) accept(key string) {
	w.mu.Lock()
	delete(w.bad, key)
	w.mu.Unlock()
}
