// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"
)

// TestCopies_OfSimulatedClusters copies two small worlds: all their rows stand, and every change arrives,
// or the row ends with an error.
func TestCopies_OfSimulatedClusters(t *testing.T) {
	lines, err := measureCopies(t.Context(), Config{Remotes: 2, Churn: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) != 4 {
		t.Errorf("%d lines, want 4", len(lines))
	}
	for _, l := range lines {
		if !l.Valid {
			t.Errorf("%+v", l)
		}
	}
}
