// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

// TestHerd_EachListsAll runs small herds: who does not get all ends the row with an error.
func TestHerd_EachListsAll(t *testing.T) {
	lines, err := runHerds(t.Context(), Config{}, []herd{{6, 50}, {2, 200}})
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) != 4 {
		t.Errorf("%d lines, want 4", len(lines))
	}
	for _, l := range lines {
		if !l.Valid || l.Ratio <= 0 {
			t.Errorf("%+v", l)
		}
	}
}

// TestResume_SendsNothingAgain restarts both servers under a few clients. What the API server sends is
// exact, however few they are.
func TestResume_SendsNothingAgain(t *testing.T) {
	lines, err := measureResume(t.Context(), Config{Clients: 5})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if !l.Valid || !l.Met || l.Ratio <= 0 {
			t.Errorf("%+v", l)
		}
	}
}
