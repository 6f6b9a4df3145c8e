// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"iter"
	"time"

	"github.com/weft-net/weft/state"
)

// Restore names, before Run, rows that were known when the process ran last, as they stood at a
// revision that was confirmed at the time given; it returns how many it took. They are put aside, not
// into the table: the first list decides. On the lineage that the guard has on disk what is absent was
// deleted, unless it was held when the process ended; on another one, or none, it is held. Without a
// guard they are forgotten.
//
// Rows that must be in force before the first list, because the store is silent, are put into the
// table by the caller under the watch's source; they are judged alike.
func (w *Watch[K, V]) Restore(kvs iter.Seq[KV], revision int64, at time.Time) (restored int) {
	for kv := range kvs {
		k, v, err := w.decode(kv)
		if err != nil {
			w.reject(kv, err)
			continue
		}
		if kv.ModRevision == 0 {
			kv.ModRevision = revision
		}
		w.learn(k, v)
		w.aside = append(w.aside, row[K, V]{k, state.Stamped[V]{Value: v, Origin: kv.ModRevision}, w.keep(kv.Value)})
		restored++
	}
	if g := w.follow.guard; g != nil && restored > 0 {
		g.expect(w.codec.Prefix)
	}
	w.asideAt = at
	w.table.Confirm(w.source, at)
	return restored
}
