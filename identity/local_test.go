// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"net/netip"
	"testing"
)

func TestLocal_LowestFreeNumber(t *testing.T) {
	l := NewLocal()
	p := func(s string) netip.Prefix { return netip.MustParsePrefix(s) }
	acquire := func(s string, want ID, fresh bool) {
		t.Helper()
		id, isNew, err := l.Acquire(p(s))
		if err != nil || id != want || isNew != fresh {
			t.Errorf("%s: got %d, %v, %v, want %d, %v", s, uint32(id), isNew, err, uint32(want), fresh)
		}
	}
	acquire("10.0.0.0/8", 16777217, true)
	acquire("10.1.2.3/8", 16777217, false)
	acquire("10.0.0.0/9", 16777218, true)
	acquire("fd00::/8", 16777219, true)
	if l.Release(p("10.0.0.0/8")) {
		t.Error("release: one user is left")
	}
	if !l.Release(p("10.0.0.0/8")) || !l.Release(p("10.0.0.0/9")) || l.Release(p("10.0.0.0/9")) {
		t.Error("release: wrong about the last user")
	}
	acquire("192.0.2.0/24", 16777217, true)
	if err := l.Restore(p("198.51.100.0/24"), 16777218); err != nil {
		t.Error(err)
	}
	acquire("203.0.113.0/24", 16777220, true)
	if got, ok := l.Prefix(16777218); !ok || got != p("198.51.100.0/24") {
		t.Errorf("prefix: got %v, %v", got, ok)
	}
	for id, s := range map[ID]string{16777218: "192.0.2.0/24", 16777217: "10.9.0.0/16", 300: "10.9.0.0/16", 2 << 24: "10.9.0.0/16"} {
		if err := l.Restore(p(s), id); err == nil {
			t.Errorf("restore %s at %d: want an error", s, uint32(id))
		}
	}
	if l.Len() != 4 {
		t.Errorf("len: got %d", l.Len())
	}
	if _, _, err := l.Acquire(netip.Prefix{}); err == nil {
		t.Error("acquire nothing: want an error")
	}
}

func TestLocal_Exhausted(t *testing.T) {
	l := NewLocal()
	l.next = LastLocal
	if id, _, err := l.Acquire(netip.MustParsePrefix("10.0.0.0/8")); err != nil || id != LastLocal {
		t.Fatalf("got %d, %v", uint32(id), err)
	}
	if _, _, err := l.Acquire(netip.MustParsePrefix("10.0.0.0/9")); !errors.Is(err, ErrLocalExhausted) {
		t.Errorf("got %v", err)
	}
}

func TestCIDRLabels(t *testing.T) {
	for s, want := range map[string]string{
		"10.1.2.3/8":      "cidr:10.0.0.0/8=;reserved:world=;",
		"fd00::/8":        "cidr:fd00--0/8=;reserved:world=;",
		"::/0":            "cidr:0--0/0=;reserved:world=;",
		"2001:db8::1/128": "cidr:2001-db8--1/128=;reserved:world=;",
	} {
		if got := CIDRLabels(netip.MustParsePrefix(s)).String(); got != want {
			t.Errorf("%s: got %q, want %q", s, got, want)
		}
	}
}
