// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/weft-net/weft/kvstore/schema"
)

// expiredBy returns the owners whose leases ended with these deletions, and when. Only an owner that
// has no row left under the prefix is asked about: what it deletes itself is mostly a part. An error is
// that of ctx, which ended before the store had answered.
func (w *Watch[K, V]) expiredBy(ctx context.Context, changes []change[K, V], deletions []deletion, held map[int64]bool) (map[string]int64, error) {
	if len(deletions) == 0 || w.owner != nil || !nodeOwned(w.codec.Prefix) {
		return nil, nil
	}
	last := map[string]int64{}
	for _, d := range deletions {
		if !held[d.revision] {
			last[d.owner] = d.revision
		}
	}
	g := w.follow.guard
	var out map[string]int64
	var err error
	if resourceOf(w.codec.Prefix) == "nodes" {
		out, err = g.withTheirRows(ctx, w.follow, last)
	} else {
		w.exceptLeft(last, changes)
		out, err = g.withoutNode(ctx, w.follow, last)
	}
	if err != nil {
		return nil, err
	}
	for owner, revision := range out {
		g.expired(owner, revision)
	}
	return out, nil
}

// rowsOf returns keys of rows of some owners, at most so many of each, those that were written first. It
// is nil while the rows are not known.
func (w *Watch[K, V]) rowsOf(owners map[string]bool, most int) map[string][]string {
	if !w.follow.status().synced {
		return nil
	}
	type known struct {
		key    K
		origin int64
	}
	all := map[string][]known{}
	for r := range w.table.All() {
		if r.Source != w.source {
			continue
		}
		if owner := w.ownerOf(r.Key, r.Value); owners[owner] {
			all[owner] = append(all[owner], known{r.Key, r.Origin})
		}
	}
	out := make(map[string][]string, len(all))
	for owner, rows := range all {
		slices.SortFunc(rows, func(a, b known) int { return cmp.Compare(a.origin, b.origin) })
		for _, r := range rows[:min(most, len(rows))] {
			out[owner] = append(out[owner], w.raw(r.key))
		}
	}
	return out
}

// exceptLeft takes the owners away that have rows left after the changes.
func (w *Watch[K, V]) exceptLeft(owners map[string]int64, changes []change[K, V]) {
	gone := map[K]struct{}{}
	fresh := map[K]V{}
	for _, c := range changes {
		if c.deleted {
			gone[c.key] = struct{}{}
			delete(fresh, c.key)
		} else {
			delete(gone, c.key)
			fresh[c.key] = c.value.Value
		}
	}
	for k, v := range fresh {
		delete(owners, w.ownerOf(k, v))
	}
	w.hold.mu.Lock()
	for _, h := range w.hold.rows {
		gone[h.key] = struct{}{}
	}
	w.hold.mu.Unlock()
	if len(owners) == 0 {
		return
	}
	for r := range w.table.All() {
		if _, ok := gone[r.Key]; ok || r.Source != w.source {
			continue
		}
		if delete(owners, w.ownerOf(r.Key, r.Value)); len(owners) == 0 {
			return
		}
	}
}

// expiredBefore returns the owners of rows that were known and that a list of the same lineage does
// not have, where the node's row is not there either: their leases ended while nobody looked. An error
// is that of ctx.
func (w *Watch[K, V]) expiredBefore(ctx context.Context, revision int64, continuity Continuity) (map[string]int64, error) {
	g := w.follow.guard
	if g == nil || w.owner != nil || !nodeOwned(w.codec.Prefix) || continuity == ContinuityBroken || continuity == ContinuityUnproven {
		return nil, nil
	}
	present := make(map[K]struct{}, len(w.pending))
	for _, r := range w.pending {
		present[r.key] = struct{}{}
	}
	w.hold.mu.Lock()
	for _, h := range w.hold.rows {
		present[h.key] = struct{}{}
	}
	w.hold.mu.Unlock()
	owners := map[string]int64{}
	for r := range w.table.All() {
		if _, ok := present[r.Key]; !ok && r.Source == w.source {
			owners[w.ownerOf(r.Key, r.Value)] = revision
		}
	}
	if time.Since(w.asideAt) < g.cfg.Lease+g.cfg.Limit { // what is older was decided by others
		for _, r := range w.aside {
			if _, ok := present[r.key]; !ok {
				owners[w.ownerOf(r.key, r.value.Value)] = revision
			}
		}
	}
	if len(owners) == 0 {
		return nil, nil
	}
	out := owners
	if resourceOf(w.codec.Prefix) != "nodes" {
		var err error
		if out, err = g.withoutNode(ctx, w.follow, owners); err != nil {
			return nil, err
		}
	}
	for owner := range out {
		g.expired(owner, revision)
	}
	return out, nil
}

// nodesListed tells the guard which nodes there are, held ones among them.
func (w *Watch[K, V]) nodesListed() {
	if w.follow.guard == nil || resourceOf(w.codec.Prefix) != "nodes" {
		return
	}
	keys := make(map[string]string, len(w.pending))
	for _, r := range w.pending {
		if k, ok := any(r.key).(schema.NodeKey); ok {
			keys[k.Name] = w.raw(r.key)
		}
	}
	w.follow.guard.nodesAre(keys)
}

// unlearn forgets a node that is gone.
func (w *Watch[K, V]) unlearn(k K) {
	if k, ok := any(k).(schema.NodeKey); ok && w.follow.guard != nil {
		w.follow.guard.nodeIsGone(k.Name)
	}
}
