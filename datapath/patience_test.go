// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"
)

// testPatience is how long a test waits for what should come at once, on a machine that is busy.
const testPatience = 20 * time.Second

// eventually waits until check returns nil and fails the test with its last error.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.Now().Add(testPatience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		tick := time.NewTimer(10 * time.Millisecond)
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal(err)
		}
	}
}

// contextOf ends with the test at the latest.
func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithCancel(context.Background())
}

func errorf(format string, args ...any) error { return fmt.Errorf(format, args...) }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
