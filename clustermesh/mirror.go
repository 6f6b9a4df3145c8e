// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"context"
	"iter"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// maxNotes bounds how many judged rows are remembered with their reason; a remote decides how many
// there are.
const maxNotes = 1000

// mirror keeps one table equal to one prefix of a remote, less what the judge refuses. The watch
// counts and shows refused rows like any invalid value; rows of which a part is left out are noted
// here.
type mirror[K comparable, V any] struct {
	resource schema.Resource
	source   state.Source
	table    *state.Table[K, V]
	codec    schema.Codec[K, V]
	judge    func(k K, v V, fresh bool) (V, verdict)
	log      *slog.Logger
	again    relisting

	watch *kvstore.Watch[K, V]

	mu sync.Mutex
	// rejected counts what the watch does not: parts of rows, and those of a later judgement.
	rejected uint64
	// notes holds each row that the judge found fault with, until it is seen again.
	notes map[K]note
}

type note struct {
	reason string
	at     time.Time
}

// newMirror mirrors the codec's prefix into the table.
func newMirror[K comparable, V any](r schema.Resource, src state.Source, table *state.Table[K, V], codec schema.Codec[K, V],
	judge func(K, V, bool) (V, verdict), client *kvstore.Client, guard *kvstore.Guard, relist time.Duration, log *slog.Logger,
) *mirror[K, V] {
	m := &mirror[K, V]{
		resource: r, source: src, table: table, codec: codec, judge: judge,
		log: log, again: newRelisting(relist), notes: make(map[K]note),
	}
	m.watch = kvstore.NewWatch(client, m.judged(), table, kvstore.WatchConfig{Source: src, Guard: guard}, log)
	return m
}

// restore names, before run, rows that an earlier run knew; the keys are those of the codec.
func (m *mirror[K, V]) restore(rows iter.Seq[kvstore.KV], at time.Time) {
	m.watch.Restore(func(yield func(kvstore.KV) bool) {
		for kv := range rows {
			kv.Key = m.codec.Prefix + kv.Key
			if !yield(kv) {
				return
			}
		}
	}, 0, at)
}

// run mirrors until ctx ends, once. It lists anew when listAgain was called, and calls listed after
// the first list.
func (m *mirror[K, V]) run(ctx context.Context, listed func()) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.watch.Run(ctx) })
	g.Go(func() error { return m.again.run(ctx, m.faults, m.watch.ListAgain) })
	g.Go(func() error {
		select {
		case <-ctx.Done():
		case <-m.watch.Listed():
			listed()
		}
		return nil
	})
	return g.Wait()
}

// listAgain asks for a new list, because claims changed and rows that were refused may pass now.
func (m *mirror[K, V]) listAgain() { m.again.ask(m.faults) }

func (m *mirror[K, V]) faults() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.notes)
}

// judged is the codec with the judge behind it. A key that is seen again, if only to be deleted,
// is judged anew, so its note goes when the key is parsed.
func (m *mirror[K, V]) judged() schema.Codec[K, V] {
	c := m.codec
	parse, decode := c.ParseKey, c.Decode
	c.ParseKey = func(tail string) (K, error) {
		k, err := parse(tail)
		if err == nil {
			m.note(k, "")
		}
		return k, err
	}
	c.Decode = func(k K, b []byte) (V, error) {
		v, err := decode(k, b)
		if err != nil {
			return v, err
		}
		v, verdict := m.judge(k, v, true)
		m.note(k, verdict.reason)
		if verdict.refused {
			return v, &schema.InvalidError{Key: c.FormatKey(k), Reason: verdict.reason}
		}
		if verdict.reason != "" {
			m.count()
			m.log.Info("part of a row left out", "resource", m.resource, "key", c.FormatKey(k), "reason", verdict.reason)
		}
		return v, nil
	}
	return c
}

func (m *mirror[K, V]) note(k K, reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch _, known := m.notes[k]; {
	case reason == "":
		delete(m.notes, k)
	case known || len(m.notes) < maxNotes:
		m.notes[k] = note{reason, time.Now()}
	}
}

func (m *mirror[K, V]) count() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rejected++
}

// recheck judges a row that was taken before. It is not called with the table locked.
func (m *mirror[K, V]) recheck(row state.Row[K, V]) {
	v, verdict := m.judge(row.Key, row.Value, false)
	if verdict.reason == "" {
		return
	}
	m.note(row.Key, verdict.reason)
	m.count()
	m.log.Info("row taken back", "resource", m.resource, "key", m.codec.FormatKey(row.Key), "reason", verdict.reason)
	m.table.Update(func(w *state.Writer[K, V]) {
		// A value that arrived in between was judged by itself.
		if now, ok := w.Get(row.Key); !ok || !m.codec.Equal(now, row.Value) {
			return
		}
		if verdict.refused {
			w.Delete(m.source, row.Origin, row.Key)
		} else {
			w.Put(m.source, row.Origin, row.Key, v)
		}
	})
	m.watch.TakenBack(row.Key)
}

// ofCopy says that the prefix is one of our own store, which the mirror writes.
func (m *mirror[K, V]) ofCopy() {
	m.watch.OwnedBy(func(K, V) string { return kvstore.OwnerMirror })
}

// copies hands the bytes of the rows to a table, before restore and run.
func (m *mirror[K, V]) copies(to *state.Table[string, []byte]) { m.watch.Copy(to) }

func (m *mirror[K, V]) kind() schema.Resource { return m.resource }

// status tells how the mirror stands.
func (m *mirror[K, V]) status() ResourceStatus {
	st := ResourceStatus{Resource: m.resource}
	for _, s := range m.table.Sources() {
		if s.Source == m.source {
			st.Synced, st.Rows, st.Confirmed = s.Synced, s.Rows, s.Confirmed
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	st.Rejected = m.rejected
	for k, n := range m.notes {
		st.reject(m.codec.Prefix+m.codec.FormatKey(k), n.reason, n.at)
	}
	w := m.watch.Status()
	st.Connected, st.Revision = w.Connected, w.Revision
	st.Rejected += w.Rejected
	st.err, st.errAt = w.LastError, w.LastErrorAt
	for _, r := range w.Rejections {
		st.reject(r.Key, r.Reason, r.At)
	}
	return st
}
