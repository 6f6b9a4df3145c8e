// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/weft-net/weft/kvstore/schema"
)

func frontendNumber(i int) Frontend {
	return Frontend{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), 80), schema.TCP}
}

func TestNumbers_RestUntilFreed(t *testing.T) {
	n := NewNumbers(3)
	assign := func(i int, want Number) {
		t.Helper()
		if got, err := n.Assign(frontendNumber(i)); err != nil || got != want {
			t.Fatalf("assign %d: %d, %v; want %d", i, got, err, want)
		}
	}
	assign(1, 1)
	assign(2, 2)
	assign(1, 1) // stays
	if got := n.Release(frontendNumber(1)); got != 1 {
		t.Fatalf("released %d", got)
	}
	assign(3, 3)
	if _, err := n.Assign(frontendNumber(4)); !errors.Is(err, ErrNumbersUsed) {
		t.Fatalf("a resting number was given out: %v", err)
	}
	if resting, used := n.Resting(); resting != 1 || used != 2 {
		t.Fatalf("resting %d, used %d", resting, used)
	}
	n.Free(2) // in use: nothing happens
	n.Free(1)
	assign(4, 1)
	assign(2, 2)
	if got := n.Release(frontendNumber(9)); got != 0 {
		t.Fatalf("released %d of a stranger", got)
	}
}

func TestNumbers_Restore(t *testing.T) {
	n := NewNumbers(4)
	if err := n.Restore(frontendNumber(1), 3); err != nil {
		t.Fatal(err)
	}
	n.Rest(4)
	for name, err := range map[string]error{
		"taken":       n.Restore(frontendNumber(2), 3),
		"two-numbers": n.Restore(frontendNumber(1), 2),
		"zero":        n.Restore(frontendNumber(3), 0),
		"too-large":   n.Restore(frontendNumber(3), 5),
	} {
		if err == nil {
			t.Errorf("%s: restored", name)
		}
	}
	if got, err := n.Assign(frontendNumber(1)); err != nil || got != 3 {
		t.Fatalf("assign after restore: %d, %v", got, err)
	}
	if got, err := n.Assign(frontendNumber(2)); err != nil || got != 1 {
		t.Fatalf("the next one: %d, %v; 4 rests", got, err)
	}
}
