// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"strings"
	"testing"
	"time"
)

func TestFlowText_SaysWhenItWasCounted(t *testing.T) {
	if got, want := flowText(0, 0, 1024, time.Time{}), "room for 1024 entries, not counted yet"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	got := flowText(7, 2, 1024, time.Now().Add(-time.Minute))
	if !strings.HasPrefix(got, "7 of 1024 entries, 2 young, counted 1m") || !strings.HasSuffix(got, " ago") {
		t.Errorf("got %q", got)
	}
}
