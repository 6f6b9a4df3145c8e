// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstoretest

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// Prefix is where the rows of the suites stand.
const Prefix = "weft/test/"

// Codec keeps text under text. A value that begins with "bad" does not validate, and a key that
// has capitals is written in small letters.
func Codec() schema.Codec[string, string] {
	return schema.Codec[string, string]{
		Prefix:    Prefix,
		FormatKey: func(k string) string { return k },
		ParseKey: func(tail string) (string, error) {
			if tail == "" {
				return "", errors.New("is empty")
			}
			return strings.ToLower(tail), nil
		},
		Encode: func(_, v string) ([]byte, error) {
			if strings.HasPrefix(v, "unwritable") {
				return nil, errors.New("cannot be written")
			}
			return []byte(v), nil
		},
		Decode: func(_ string, b []byte) (string, error) {
			if strings.HasPrefix(string(b), "bad") {
				return "", fmt.Errorf("%q is bad", b)
			}
			return string(b), nil
		},
		Equal: func(a, b string) bool { return a == b },
	}
}

// Table is a table for rows of Codec.
func Table() *state.Table[string, string] {
	return state.NewTable[string]("test", state.Equal[string])
}

// Source is what rows of Watch are tagged with.
const Source state.Source = "etcd"

// WatchConfig has short pauses.
func WatchConfig() kvstore.WatchConfig {
	return kvstore.WatchConfig{
		Source:     Source,
		PageSize:   50,
		Gap:        100,
		Progress:   50 * time.Millisecond,
		Silence:    5 * time.Second, // on a busy machine a working server is silent for a while
		MinBackoff: time.Millisecond,
		MaxBackoff: 50 * time.Millisecond,
	}
}

// Watch runs a watch of Codec over a client until the test ends.
func Watch(t testing.TB, c *kvstore.Client, table *state.Table[string, string], cfg kvstore.WatchConfig) *kvstore.Watch[string, string] {
	t.Helper()
	w := kvstore.NewWatch(c, Codec(), table, cfg, Log(t))
	Go(t, w.Run)
	return w
}

// Rows are the rows of a table.
func Rows(table *state.Table[string, string]) map[string]string {
	out := map[string]string{}
	for r := range table.All() {
		out[r.Key] = r.Value
	}
	return out
}

// Stored is what stands under Prefix.
func Stored(t testing.TB, c *kvstore.Client) map[string]string {
	t.Helper()
	l, err := c.List(t.Context(), Prefix, kvstore.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, kv := range l.KVs {
		out[strings.TrimPrefix(kv.Key, Prefix)] = string(kv.Value)
	}
	return out
}

// WantRows waits until a table has exactly these rows.
func WantRows(t testing.TB, table *state.Table[string, string], want map[string]string) {
	t.Helper()
	Eventually(t, func() string {
		got := Rows(table)
		if maps.Equal(got, want) {
			return ""
		}
		return "rows (-want +got):\n" + cmp.Diff(want, got)
	})
}

// WantStored waits until exactly these rows stand under Prefix.
func WantStored(t testing.TB, c *kvstore.Client, want map[string]string) {
	t.Helper()
	Eventually(t, func() string {
		got := Stored(t, c)
		if maps.Equal(got, want) {
			return ""
		}
		return "stored (-want +got):\n" + cmp.Diff(want, got)
	})
}
