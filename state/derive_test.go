// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

func TestDerive_FollowsInputs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := NewTable[int]("names", Equal[string])
		loud := NewTable[int]("loud", Equal[bool])
		out := NewTable[int]("out", Equal[string])
		a, b := names.Cursor(), loud.Cursor()
		defer a.Close()
		defer b.Close()
		row := func(w *Writer[int, string], k int) {
			name, ok := names.Get(k)
			if !ok {
				w.Delete("derived", 0, k)
				return
			}
			if l, ok := loud.Get(k); ok && l.Value {
				name.Value = strings.ToUpper(name.Value)
			}
			w.Put("derived", 0, k, name.Value)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- Derive(ctx, out, "derived", func() error {
				as, bs := a.Next(2), b.Next(2)
				out.Update(func(w *Writer[int, string]) {
					for _, c := range as {
						row(w, c.Key)
					}
					for _, c := range bs {
						row(w, c.Key)
					}
				})
				return nil
			}, a, b)
		}()
		expect := func(synced bool, rows map[int]string) {
			t.Helper()
			synctest.Wait()
			got := map[int]string{}
			for r := range out.All() {
				got[r.Key] = r.Value
			}
			if diff := cmp.Diff(rows, got); diff != "" {
				t.Fatalf("derived (-want +got):\n%s", diff)
			}
			if out.Synced() != synced {
				t.Fatalf("synced = %v", !synced)
			}
		}
		for k, v := range []string{"zero", "one", "two", "three", "four"} {
			names.Put("s", 0, k, v)
		}
		names.Delete("s", 0, 4)
		expect(false, map[int]string{0: "zero", 1: "one", 2: "two", 3: "three"})
		names.MarkSynced("s")
		expect(false, map[int]string{0: "zero", 1: "one", 2: "two", 3: "three"})
		loud.Put("s", 0, 1, true)
		loud.MarkSynced("s")
		expect(true, map[int]string{0: "zero", 1: "ONE", 2: "two", 3: "three"})
		names.Delete("s", 0, 0)
		loud.Put("s", 0, 1, false)
		expect(true, map[int]string{1: "one", 2: "two", 3: "three"})
		loud.MarkUnsynced("s")
		expect(false, map[int]string{1: "one", 2: "two", 3: "three"})
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func TestDerive_ReturnsTheStepsError(t *testing.T) {
	in := NewTable[int]("in", Equal[int])
	in.Put("s", 0, 1, 1)
	c := in.Cursor()
	defer c.Close()
	broken := errors.New("broken")
	if err := Derive(t.Context(), nil, "", func() error { return broken }, c); !errors.Is(err, broken) {
		t.Fatalf("error = %v", err)
	}
}
