// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"sync"

	"github.com/weft-net/weft/state"
)

// copies keeps the bytes of a watch's rows beside the rows themselves, for whoever publishes them
// elsewhere as they are. While the guard holds, the table that it keeps stands still: what changes
// meanwhile is put into it when the hold ends.
type copies[K comparable, V any] struct {
	to     *state.Table[string, []byte]
	source state.Source
	watch  *Watch[K, V]

	mu     sync.Mutex
	bytes  map[string][]byte // of each row, by the key without the codec's prefix
	behind bool              // the table stands still and lacks changes
}

// Copy keeps in a table, under the watch's source, the bytes of its rows as they stand in the store,
// by keys without the codec's prefix. A value that was refused leaves the copy of the one before, and
// a row that is held keeps its own. While the guard holds, nothing changes in the table, and the
// source is not synced. Copy is called before Run and before Restore; what the table has of the source
// is taken for the copies of an earlier watch of the same rows.
func (w *Watch[K, V]) Copy(to *state.Table[string, []byte]) {
	c := &copies[K, V]{to: to, source: w.source, watch: w, bytes: map[string][]byte{}}
	for row := range to.All() {
		if row.Source == w.source {
			c.bytes[row.Key] = row.Value
		}
	}
	to.Expect(w.source)
	w.copies = c
}

// keep is the bytes where somebody wants them; a list need not have them in memory else.
func (w *Watch[K, V]) keep(b []byte) []byte {
	if w.copies == nil {
		return nil
	}
	return b
}

// TakenBack says that the caller has deleted rows of the watch from its table.
func (w *Watch[K, V]) TakenBack(keys ...K) {
	if w.copies != nil {
		w.copies.gone(keys)
	}
}

// frozen tells whether the table stands still now.
func (c *copies[K, V]) frozen() bool {
	g := c.watch.follow.guard
	if g == nil {
		return false
	}
	holding, _ := g.Holding()
	return holding
}

// listed takes over a list, with the rows that are held.
func (c *copies[K, V]) listed(rows []row[K, V], revision int64) {
	frozen := c.frozen()
	c.mu.Lock()
	defer c.mu.Unlock()
	next := make(map[string][]byte, len(rows))
	for _, r := range rows {
		tail := c.watch.codec.FormatKey(r.key)
		if b := r.bytes; b != nil {
			next[tail] = b
		} else if b, ok := c.bytes[tail]; ok {
			next[tail] = b
		}
	}
	c.bytes = next
	if c.behind = frozen; !frozen {
		c.replaceLocked(revision)
	}
}

func (c *copies[K, V]) replaceLocked(revision int64) {
	c.to.Replace(c.source, revision, func(yield func(string, state.Stamped[[]byte]) bool) {
		for tail, b := range c.bytes {
			if !yield(tail, state.Stamped[[]byte]{Value: b, Origin: revision}) {
				return
			}
		}
	})
}

// changed takes over changes that were written to the watch's table, as far as they stand there: a
// deletion may be held.
func (c *copies[K, V]) changed(changes []change[K, V]) {
	frozen := c.frozen()
	c.mu.Lock()
	defer c.mu.Unlock()
	touched := make(map[string]int64, len(changes))
	for _, ch := range changes {
		tail := c.watch.codec.FormatKey(ch.key)
		_, there := c.watch.table.Get(ch.key)
		switch {
		case !there:
			delete(c.bytes, tail)
		case !ch.deleted:
			c.bytes[tail] = ch.bytes
		default:
			continue
		}
		touched[tail] = ch.value.Origin
	}
	c.writeLocked(touched, frozen)
}

// gone takes over rows that were deleted from the watch's table without a word of the store.
func (c *copies[K, V]) gone(keys []K) {
	frozen := c.frozen()
	c.mu.Lock()
	defer c.mu.Unlock()
	touched := make(map[string]int64, len(keys))
	for _, k := range keys {
		if _, there := c.watch.table.Get(k); there {
			continue // it came again meanwhile
		}
		tail := c.watch.codec.FormatKey(k)
		delete(c.bytes, tail)
		touched[tail] = 0
	}
	c.writeLocked(touched, frozen)
}

// writeLocked writes what was touched, unless the table stands still.
func (c *copies[K, V]) writeLocked(touched map[string]int64, frozen bool) {
	if c.behind = c.behind || frozen && len(touched) > 0; frozen {
		return
	}
	c.to.Update(func(w *state.Writer[string, []byte]) {
		for tail, origin := range touched {
			if b, ok := c.bytes[tail]; ok {
				w.Put(c.source, origin, tail, b)
			} else {
				w.Delete(c.source, origin, tail)
			}
		}
	})
}

// mark says whether the table has all that the source has. A hold that ends lets it go on.
func (c *copies[K, V]) mark(holding bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if holding {
		c.to.MarkUnsynced(c.source)
		return
	}
	if c.behind {
		c.behind = false
		c.replaceLocked(0)
	}
	c.to.MarkSynced(c.source)
}
