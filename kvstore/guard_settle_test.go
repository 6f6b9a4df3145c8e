// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/kvstore/schema"
)

// TestGuard_MassIsOver: that too many leases ended once says nothing about the one that ends later.
func TestGuard_MassIsOver(t *testing.T) {
	t.Parallel()
	g := NewGuard(nil, GuardConfig{Lease: time.Minute, Settle: time.Second}, slog.New(slog.DiscardHandler))
	g.enrolled["ips"] = true
	for n := range 10 {
		g.nodeIs(fmt.Sprintf("n%d", n), fmt.Sprintf("k%d", n))
	}
	expire := func(revision int64, owner string) {
		g.expired(owner, revision)
		g.carry("cilium/state/ip/v1/default/", map[string]carriedRow{owner: {heldGroup{owner, WhyExpired, revision, 0}, time.Now()}})
	}
	want := func(rows int, mass bool) {
		t.Helper()
		groups := map[heldGroup]int{}
		g.groups(groups, map[string]int{})
		if len(groups) != rows || g.massive() != mass {
			t.Fatalf("%d rows, mass %v; want %d, %v", len(groups), g.massive(), rows, mass)
		}
	}
	for n := range 3 {
		expire(int64(10+n), fmt.Sprintf("n%d", n))
	}
	g.online += 2 * time.Second
	g.settle()
	want(3, true)
	g.endCarried(func(h heldGroup) bool { return h.owner != "n2" }) // two are back
	g.online += time.Minute
	g.settle()
	want(1, true)
	g.endCarried(func(heldGroup) bool { return true })
	g.settle()
	want(0, false)

	expire(20, "n5")
	g.settle()
	want(1, false)
	if holding, _ := g.Holding(); holding {
		t.Error("one dead node is a hold")
	}
	g.online += time.Second
	g.settle()
	want(0, false)
}

// leaver is a watch that ends while it is asked what it holds.
type leaver struct {
	member
	guard *Guard
	rows  map[string]carriedRow
}

func (l *leaver) prefix() string      { return "cilium/state/ip/v1/default/" }
func (l *leaver) leave()              { l.guard.carry(l.prefix(), l.rows) }
func (l *leaver) mark(bool)           {}
func (l *leaver) follower() *follower { return &follower{} }

func (l *leaver) held(map[string]carriedRow)                     { l.leave() }
func (l *leaver) groups(map[heldGroup]int, map[string]int, bool) { l.leave() }
func (l *leaver) heldRows(int, bool) []HeldRow                   { return nil }
func (l *leaver) end(func(heldGroup) bool) int                   { return 0 }

// TestGuard_WatchEnds: what a watch leaves behind while the guard asks around is missed by nobody.
func TestGuard_WatchEnds(t *testing.T) {
	t.Parallel()
	start := func() *Guard {
		g := NewGuard(nil, GuardConfig{}, slog.New(slog.DiscardHandler))
		g.enroll(&leaver{guard: g, rows: map[string]carriedRow{
			"a": {heldGroup{"n0", WhyLineage, 5, 0}, time.Now()},
			"b": {heldGroup{"n0", WhyLineage, 5, 0}, time.Now()},
		}})
		return g
	}
	if got := start().allHeld(); len(got["ips"]) != 2 {
		t.Errorf("%v is held, want both rows", got)
	}
	groups, kinds := map[heldGroup]int{}, map[string]int{}
	start().groups(groups, kinds)
	if groups[heldGroup{"n0", WhyLineage, 5, 0}] != 2 || kinds["ips"] != 2 {
		t.Errorf("counted %v, %v, want two rows", groups, kinds)
	}
}

// TestGuard_LeftInHold: an owner that leaves in a hold is waited for until the hold ends, and no longer.
func TestGuard_LeftInHold(t *testing.T) {
	t.Parallel()
	g := NewGuard(nil, GuardConfig{Owners: true}, slog.New(slog.DiscardHandler))
	known := func(want int) {
		t.Helper()
		if f, _ := g.facts(); len(f.known) != want {
			t.Fatalf("%v are known, want %d", f.known, want)
		}
	}
	value, err := schema.Owners().Encode("n0", schema.Owner{Epoch: strings.Repeat("01", 16), Complete: true})
	if err != nil {
		t.Fatal(err)
	}
	says := func(owner string, gone bool) {
		g.ownerSaid(event{KV: KV{Key: schema.OwnersPrefix + owner, Value: value, ModRevision: 3}, Deleted: gone})
	}
	for n := range 4 {
		says(fmt.Sprintf("n%d", n), false)
	}
	says("n0", true)
	known(3)
	g.enrolled["ips"] = true
	g.carry("cilium/state/ip/v1/default/", map[string]carriedRow{"a": {heldGroup{"n3", WhyLineage, 5, 0}, time.Now()}})
	g.refresh()
	says("n1", true)
	says("n2", true)
	known(3)
	says("n2", false)
	known(3)
	g.endCarried(func(heldGroup) bool { return true })
	g.refresh()
	known(2)
}
