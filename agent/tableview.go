// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/state"
)

// viewBatch is how many rows are read from a table at a time.
const viewBatch = 1000

// tableView is one table as the local API shows it.
type tableView struct {
	name  string
	about func() *api.Table
	// get sends the rows that match key, a mark, and with watch every later change
	// until ctx ends.
	get func(ctx context.Context, key string, watch bool, send func(*api.TableItem) error) error
}

// columns says how a table's rows are shown.
type columns[K comparable, V any] struct {
	about string
	// parts are those of the key, from the general to the particular; joined by
	// slashes they are its text, and a row is found by any of them.
	parts func(K) []string
	// also are other texts by which a row is found, such as its addresses; may be nil.
	also  func(K, V) []string
	value func(K, V) any
	// outcome is what became of the row outside; nil where nothing reconciles the table.
	outcome func(K) (state.Outcome, bool)
}

func viewOf[K comparable, V any](t *state.Table[K, V], c columns[K, V]) tableView {
	return tableView{
		name: t.Name(),
		about: func() *api.Table {
			info := &api.Table{
				Name: t.Name(), About: c.about, Rows: uint64(t.Len()), Revision: t.Revision(), Synced: t.Synced(), Reconciled: c.outcome != nil,
			}
			for _, s := range t.Sources() {
				info.Sources = append(info.Sources, &api.TableSource{
					Name: string(s.Source), Synced: s.Synced, Rows: uint64(s.Rows), Confirmed: nanos(s.Confirmed),
				})
			}
			return info
		},
		get: func(ctx context.Context, key string, watch bool, send func(*api.TableItem) error) error {
			return streamTable(ctx, t, c, key, watch, send)
		},
	}
}

func streamTable[K comparable, V any](
	ctx context.Context, t *state.Table[K, V], c columns[K, V], key string, watch bool, send func(*api.TableItem) error,
) error {
	cursor := t.Cursor()
	defer cursor.Close()
	marked := false
	for {
		changes := cursor.Next(viewBatch)
		for _, change := range changes {
			if !c.found(change.Key, change.Value, key) {
				continue
			}
			row, err := c.row(change)
			if err != nil {
				return fmt.Errorf("table %s: %w", t.Name(), err)
			}
			if err := send(&api.TableItem{Item: &api.TableItem_Row{Row: row}}); err != nil {
				return err
			}
		}
		if len(changes) == viewBatch {
			continue
		}
		if !marked {
			marked = true
			mark := &api.TableMark{Revision: t.Revision(), Synced: t.Synced()}
			if err := send(&api.TableItem{Item: &api.TableItem_Mark{Mark: mark}}); err != nil {
				return err
			}
		}
		if !watch {
			return nil
		}
		if err := cursor.Wait(ctx); err != nil {
			return err
		}
	}
}

func (c columns[K, V]) row(change state.Change[K, V]) (*api.Row, error) {
	value, err := json.Marshal(c.value(change.Key, change.Value))
	if err != nil {
		return nil, fmt.Errorf("row %s: %w", keyText(c.parts(change.Key)), err)
	}
	row := &api.Row{
		Key: keyText(c.parts(change.Key)), Value: value, Source: string(change.Source), Origin: change.Origin,
		Revision: change.Revision, Changed: nanos(change.Changed), Deleted: change.Deleted,
	}
	if c.outcome != nil && !change.Deleted {
		if o, ok := c.outcome(change.Key); ok {
			row.Outcome = &api.Outcome{Done: o.Done, Attempts: uint32(o.Attempts), At: nanos(o.At), Revision: o.Revision}
			if o.Err != nil {
				row.Outcome.Error = o.Err.Error()
			}
		}
	}
	return row, nil
}

func keyText(parts []string) string {
	text := ""
	for i, p := range parts {
		if i > 0 {
			text += "/"
		}
		text += p
	}
	return text
}

// found says that the row is what key asks for.
func (c columns[K, V]) found(k K, v V, key string) bool {
	return matches(c.parts(k), key) || c.also != nil && slices.Contains(c.also(k, v), key)
}

// matches finds a row by its whole key, by one part, or by the last parts together
// ("default/web" finds "b/default/web").
func matches(parts []string, key string) bool {
	if key == "" || slices.Contains(parts, key) {
		return true
	}
	for i := range parts {
		if keyText(parts[i:]) == key {
			return true
		}
	}
	return false
}

// nanos is the API's form of a time; never is 0.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
