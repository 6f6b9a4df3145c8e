// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/identity"
	"github.com/weft-net/weft/state"
)

// flaky fails as often as it is told and then sends on what it was called with.
type flaky struct {
	failures int
	told     chan string
}

func (f *flaky) Renumber(_ context.Context, set string, number uint32) error {
	if f.failures--; f.failures >= 0 {
		return errors.New("disk is full")
	}
	f.told <- fmt.Sprint(set, number)
	return nil
}

func TestRenumbering_TriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := state.NewTable[string]("held", state.Equal[identity.Holding])
		endpoints := &flaky{failures: 7, told: make(chan string)}
		r := &renumbering{held: held, endpoints: endpoints, log: slog.New(slog.DiscardHandler)}
		held.Put(derived, 0, "a=", identity.Holding{})
		held.Put(derived, 0, "b=", identity.Holding{ID: 70000})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		got := []string{<-endpoints.told}
		synctest.Wait()
		held.Put(derived, 0, "a=", identity.Holding{ID: 70001})
		got = append(got, <-endpoints.told)
		if d := cmp.Diff([]string{"b=70000", "a=70001"}, got); d != "" {
			t.Error(d)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
