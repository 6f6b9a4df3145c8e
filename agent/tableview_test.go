// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/state"
)

func TestMatches(t *testing.T) {
	parts := []string{"b", "default", "web"}
	for key, want := range map[string]bool{
		"": true, "b": true, "web": true, "default/web": true, "b/default/web": true, "b/default": false, "we": false, "a": false,
	} {
		if got := matches(parts, key); got != want {
			t.Errorf("%q: got %v, want %v", key, got, want)
		}
	}
}

func textView(table *state.Table[string, string]) tableView {
	return viewOf(table, columns[string, string]{
		about: "texts", parts: func(k string) []string { return []string{k} },
		also:  func(_, v string) []string { return []string{"value-" + v} },
		value: func(_, v string) any { return v },
		outcome: func(k string) (state.Outcome, bool) {
			return state.Outcome{Done: k != "b", Err: errIf(k == "b"), Attempts: 2}, true
		},
	})
}

func errIf(yes bool) error {
	if yes {
		return errors.New("full")
	}
	return nil
}

func itemText(i *api.TableItem) string {
	if m := i.GetMark(); m != nil {
		return fmt.Sprintf("mark %d %v", m.Revision, m.Synced)
	}
	r := i.GetRow()
	return fmt.Sprintf("%s=%s %s %d deleted=%v done=%v %s", r.Key, r.Value, r.Source, r.Origin, r.Deleted, r.Outcome.GetDone(), r.Outcome.GetError())
}

func TestTableView_GetAndWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := state.NewTable[string]("texts", state.Equal[string])
		for i := range viewBatch + 5 {
			table.Put("other", 0, fmt.Sprintf("x%d", i), "v")
		}
		table.Drop("other")
		table.Put("test", 7, "a", "1")
		table.Put("test", 8, "b", "2")
		table.MarkSynced("test")
		view := textView(table)
		var got []string
		send := func(i *api.TableItem) error { got = append(got, itemText(i)); return nil }
		if err := view.get(t.Context(), "", false, send); err != nil {
			t.Fatal(err)
		}
		revision := table.Revision()
		want := []string{`a="1" test 7 deleted=false done=true `, `b="2" test 8 deleted=false done=false full`, fmt.Sprintf("mark %d true", revision)}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}

		got = nil
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- view.get(ctx, "value-3", true, send) }()
		synctest.Wait()
		table.Put("test", 9, "c", "3")
		table.Put("test", 9, "d", "4")
		synctest.Wait()
		table.Delete("test", 10, "c")
		time.Sleep(time.Second)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("watch ended with %v", err)
		}
		want = []string{fmt.Sprintf("mark %d true", revision), `c="3" test 9 deleted=false done=true `, `c="3" test 10 deleted=true done=false `}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if about := view.about(); about.Rows != 3 || !about.Synced || !about.Reconciled || len(about.Sources) != 1 {
			t.Errorf("about %v", about)
		}
	})
}
