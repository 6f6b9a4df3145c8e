// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/weft-net/weft/agent/api"
)

// row is one row of a table as json and yaml print it.
type row struct {
	Key      string          `json:"key"`
	Value    json.RawMessage `json:"value"`
	Source   string          `json:"source"`
	Origin   int64           `json:"origin,omitempty"`
	Revision uint64          `json:"revision"`
	Changed  time.Time       `json:"changed"`
	Deleted  bool            `json:"deleted,omitempty"`
	Outcome  *outcome        `json:"outcome,omitempty"`
}

type outcome struct {
	Done     bool      `json:"done"`
	Error    string    `json:"error,omitempty"`
	Attempts uint32    `json:"attempts,omitempty"`
	At       time.Time `json:"at"`
}

func rowOf(r *api.Row) row {
	v := row{
		Key: r.Key, Value: r.Value, Source: r.Source, Origin: r.Origin, Revision: r.Revision,
		Changed: nanos(r.Changed), Deleted: r.Deleted,
	}
	if !json.Valid(v.Value) {
		v.Value = json.RawMessage("null")
	}
	if o := r.Outcome; o != nil {
		v.Outcome = &outcome{o.Done, o.Error, o.Attempts, nanos(o.At)}
	}
	return v
}

// readTable returns the rows of a table as they are now.
func readTable(ctx context.Context, c api.AgentClient, table, key string) ([]row, error) {
	stream, err := c.TableGet(ctx, &api.TableGetRequest{Table: table, Key: key})
	if err != nil {
		return nil, err
	}
	var rows []row
	for {
		item, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			slices.SortStableFunc(rows, func(a, b row) int { return strings.Compare(a.Key, b.Key) })
			return rows, nil
		}
		if err != nil {
			return nil, err
		}
		if r := item.GetRow(); r != nil {
			rows = append(rows, rowOf(r))
		}
	}
}

// outcomeText says in a word whether the row is where it should be.
func (r row) outcomeText() string {
	switch o := r.Outcome; {
	case r.Deleted:
		return "deleted"
	case o == nil:
		return "-"
	case o.Error != "":
		return o.Error
	case o.Done:
		return "done"
	default:
		return "pending"
	}
}

// summary prints a JSON value on one line, without braces, quotes and empty fields.
func summary(value json.RawMessage) string {
	var v any
	if json.Unmarshal(value, &v) != nil {
		return string(value)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return flat(v)
	}
	var parts []string
	for _, k := range sortedKeys(m) {
		if !empty(m[k]) {
			parts = append(parts, k+"="+flat(m[k]))
		}
	}
	return strings.Join(parts, " ")
}

func flat(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case nil:
		return ""
	case []any:
		var parts []string
		for _, x := range v {
			parts = append(parts, flat(x))
		}
		return strings.Join(parts, ",")
	case map[string]any:
		var parts []string
		for _, k := range sortedKeys(v) {
			if !empty(v[k]) {
				parts = append(parts, k+":"+flat(v[k]))
			}
		}
		return "(" + strings.Join(parts, " ") + ")"
	case bool:
		return yesNo(v)
	case float64:
		if v == float64(int64(v)) {
			return fmt.Sprint(int64(v))
		}
	}
	return fmt.Sprint(v)
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case float64:
		return v == 0
	case bool:
		return !v
	case []any:
		return len(v) == 0
	case map[string]any:
		for _, x := range v {
			if !empty(x) {
				return false
			}
		}
		return true
	}
	return false
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// remotes says how many backends each other cluster offers: "b:6, c:2 (not shared)".
func (r row) remotes() string {
	var v struct {
		Remotes []struct {
			Cluster  string `json:"cluster"`
			Shared   bool   `json:"shared"`
			Backends int    `json:"backends"`
		} `json:"remotes"`
	}
	if json.Unmarshal(r.Value, &v) != nil {
		return "-"
	}
	var parts []string
	for _, c := range v.Remotes {
		text := fmt.Sprintf("%s:%d", c.Cluster, c.Backends)
		if !c.Shared {
			text += " (not shared)"
		}
		parts = append(parts, text)
	}
	return orDash(strings.Join(parts, ", "))
}

// field reads one field of the row's JSON value as text.
func (r row) field(name string) string {
	var m map[string]any
	if json.Unmarshal(r.Value, &m) != nil {
		return "-"
	}
	return orDash(flat(m[name]))
}
