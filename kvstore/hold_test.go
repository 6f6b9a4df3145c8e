// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/kvstore/schema"
)

func TestJudgeHold(t *testing.T) {
	const e, old = "e", "old"
	said := func(epoch string, mod int64) ownerWord {
		return ownerWord{schema.Owner{Epoch: epoch, Complete: true}, mod}
	}
	group := func(owner string, why Why, born time.Duration) heldGroup {
		return heldGroup{owner, why, 10, born}
	}
	names := func(n int) map[string]bool {
		out := map[string]bool{}
		for i := range n {
			out[fmt.Sprintf("n%d", i)] = true
		}
		return out
	}
	a, b, c := group("n0", WhyLineage, 0), group("n1", WhyLineage, 0), group("n2", WhyLineage, 0)
	span := group("n0", WhySpan, 0)
	x, y := group("n0", WhyExpired, 0), group("n1", WhyExpired, 0)
	ages := func(age time.Duration, owners ...string) map[string]time.Duration {
		out := map[string]time.Duration{}
		for _, o := range owners {
			out[o] = age
		}
		return out
	}
	everybody, operator := group(OwnerEverybody, WhyLineage, 0), group(OwnerOperator, WhyLineage, 0)
	for _, tt := range []struct {
		name        string
		groups      []heldGroup
		words       map[string]ownerWord
		known       map[string]bool
		clock       time.Duration
		foreign     bool // no owners' rows are expected
		expired     map[string]time.Duration
		mass        bool // it was one before
		adopted     int64
		end         []heldGroup
		unconfirmed int
		stuck       bool
		massed      bool
	}{
		{name: "silent-owner", groups: []heldGroup{a}, known: names(10), unconfirmed: 1},
		{name: "owner-has-spoken", groups: []heldGroup{a, b}, words: map[string]ownerWord{"n0": said(e, 11)}, known: names(10), end: []heldGroup{a}, unconfirmed: 1},
		{name: "word-of-before", groups: []heldGroup{a}, words: map[string]ownerWord{"n0": said(e, 10)}, known: names(10), unconfirmed: 1},
		{name: "left-before", groups: []heldGroup{a, b}, words: map[string]ownerWord{"n0": {schema.Owner{Epoch: e, Complete: true, Left: true}, 9}}, known: names(10), end: []heldGroup{a}, unconfirmed: 1},
		{name: "left-another-store", groups: []heldGroup{a}, words: map[string]ownerWord{"n0": {schema.Owner{Epoch: old, Complete: true, Left: true}, 11}}, known: names(10), unconfirmed: 1},
		{name: "word-of-another-epoch", groups: []heldGroup{a}, words: map[string]ownerWord{"n0": said(old, 11)}, known: names(10), unconfirmed: 1},
		{name: "not-complete", groups: []heldGroup{a}, words: map[string]ownerWord{"n0": {schema.Owner{Epoch: e}, 11}}, known: names(10), unconfirmed: 1},
		{name: "limit-not-over", groups: []heldGroup{a}, known: names(10), clock: 59 * time.Minute, unconfirmed: 1},
		{name: "limit-over", groups: []heldGroup{a}, known: names(10), clock: time.Hour, end: []heldGroup{a}, unconfirmed: 1},
		{name: "born-later", groups: []heldGroup{group("n0", WhyLineage, time.Minute)}, known: names(10), clock: time.Hour, unconfirmed: 1},
		{name: "brief-over", groups: []heldGroup{a, span}, known: names(10), clock: time.Minute, end: []heldGroup{span}, unconfirmed: 1},
		{name: "too-many-silent", groups: []heldGroup{a, b, c}, known: names(10), clock: time.Hour, unconfirmed: 3, stuck: true},
		{name: "a-fifth-is-silent", groups: []heldGroup{a, b, c}, known: names(15), clock: time.Hour, end: []heldGroup{a, b, c}, unconfirmed: 3},
		{name: "both-of-two", groups: []heldGroup{a, b}, known: names(2), clock: time.Hour, unconfirmed: 2, stuck: true},
		{name: "the-only-one", groups: []heldGroup{a}, known: names(1), clock: time.Hour, end: []heldGroup{a}, unconfirmed: 1},
		{name: "foreign-store", groups: []heldGroup{a, b, c}, known: names(3), clock: time.Hour, foreign: true, end: []heldGroup{a, b, c}, unconfirmed: 3},
		{name: "everybody-but-one", groups: []heldGroup{everybody}, words: map[string]ownerWord{"n0": said(e, 11)}, known: names(2), unconfirmed: 1},
		{name: "everybody", groups: []heldGroup{everybody}, words: map[string]ownerWord{"n0": said(e, 11), "n1": said(e, 12)}, known: names(2), end: []heldGroup{everybody}},
		{name: "nobody-known", groups: []heldGroup{everybody}, unconfirmed: 1},
		{name: "operator-away", groups: []heldGroup{operator}, known: map[string]bool{OwnerOperator: true, "n0": true}, clock: 24 * time.Hour, unconfirmed: 1, stuck: true},
		{name: "operator-has-spoken", groups: []heldGroup{operator}, words: map[string]ownerWord{OwnerOperator: said(e, 11)}, known: names(1), end: []heldGroup{operator}},
		{name: "a-part-of-them-came-later", groups: []heldGroup{span, group("n1", WhySpan, time.Second)}, known: names(10), clock: time.Minute, unconfirmed: 2},
		{name: "few-of-many-are-old", groups: []heldGroup{a, {"n1", WhyLineage, 11, time.Minute}, {"n2", WhyLineage, 11, time.Minute}}, known: names(10), clock: time.Hour, unconfirmed: 3, stuck: true},
		{name: "decided", groups: []heldGroup{a, {"n1", WhyLineage, 11, 0}}, known: names(10), adopted: 11, end: []heldGroup{a}, unconfirmed: 1},
		{name: "lease-ended", groups: []heldGroup{x}, known: names(10), expired: ages(10*time.Second, "n0")},
		{name: "lease-ended-and-settled", groups: []heldGroup{x, y}, known: names(10), expired: map[string]time.Duration{"n0": 30 * time.Second, "n1": 29 * time.Second}, end: []heldGroup{x}},
		{name: "lease-ended-long-ago", groups: []heldGroup{x}, known: names(10), end: []heldGroup{x}},
		{name: "leases-of-too-many", groups: []heldGroup{x, y}, known: names(10), expired: ages(time.Minute, "n0", "n1", "n9"), unconfirmed: 2, massed: true},
		{name: "leases-of-few-of-many", groups: []heldGroup{x, y}, known: names(15), expired: ages(time.Minute, "n0", "n1", "n9"), end: []heldGroup{x, y}},
		{name: "leases-of-both", groups: []heldGroup{x, y}, known: names(2), expired: ages(time.Minute, "n0", "n1"), unconfirmed: 2, massed: true},
		{name: "too-many-before", groups: []heldGroup{x, y}, known: names(10), mass: true, words: map[string]ownerWord{"n0": said(e, 11)}, end: []heldGroup{x}, unconfirmed: 1, massed: true},
		{name: "too-many-and-limit-over", groups: []heldGroup{x, y}, known: names(10), mass: true, clock: time.Hour, end: []heldGroup{x, y}, unconfirmed: 2, massed: true},
		{name: "operator-that-never-spoke", groups: []heldGroup{operator}, known: names(1), clock: time.Hour, end: []heldGroup{operator}, unconfirmed: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := holdFacts{
				groups: map[heldGroup]int{}, words: tt.words, known: tt.known, epoch: e, clock: tt.clock,
				limit: time.Hour, brief: time.Minute, owners: !tt.foreign,
				expired: tt.expired, mass: tt.mass, adopted: tt.adopted, settle: 30 * time.Second, nodes: len(tt.known),
			}
			for _, g := range tt.groups {
				f.groups[g] = 1
			}
			want := holdVerdict{map[heldGroup]int64{}, tt.unconfirmed, tt.stuck, tt.massed}
			for _, g := range tt.end {
				if want.end[g], _ = f.confirmed(g.owner, g.revision); g.revision < tt.adopted {
					want.end[g] = tt.adopted - 1
				}
			}
			got := judgeHold(f)
			if diff := cmp.Diff(fmt.Sprint(want), fmt.Sprint(got)); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSpans(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []deletion
		want map[int64]bool
	}{
		{name: "nothing", want: map[int64]bool{}},
		{"a-third-of-all-by-its-owner", []deletion{{5, "a", "n0"}, {5, "b", "n0"}, {5, "c", "n0"}}, map[int64]bool{}},
		{"each-owner-its-own", []deletion{{5, "a", "n0"}, {6, "b", "n1"}}, map[int64]bool{}},
		{"two-owners", []deletion{{5, "a", "n0"}, {5, "b", "n1"}, {6, "c", "n0"}}, map[int64]bool{5: true}},
		{"one-row-of-the-cluster", []deletion{{5, "a", OwnerOperator}}, map[int64]bool{}},
		{"two-rows-of-the-cluster", []deletion{{5, "a", OwnerOperator}, {5, "b", OwnerOperator}}, map[int64]bool{5: true}},
		{"two-numbers", []deletion{{5, "a", OwnerEverybody}, {5, "b", OwnerEverybody}}, map[int64]bool{5: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, spans(tt.in)); diff != "" {
				t.Errorf("spans (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLineageFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "lineage")
	if _, _, ok, err := readLineage(path); ok || err != nil {
		t.Fatalf("no file: %v, %v", ok, err)
	}
	want := lineage{7, "e", 20, witness{"k", 12, 99, true, 18}, tombstone{"k", 17}}
	if err := writeLineage(path, want, time.Minute); err != nil {
		t.Fatal(err)
	}
	got, clock, ok, err := readLineage(path)
	if !ok || err != nil || got != want || clock != time.Minute {
		t.Fatalf("got %+v, %s, %v, %v; want %+v", got, clock, ok, err, want)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", string(b[:len(b)-1]), strings.Replace(string(b), "lineage 2", "lineage 3", 1), strings.Replace(string(b), "lineage 2", "lineage 1", 1) + " ", strings.Replace(string(b), `"k"`, `"l"`, 1)} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, ok, err := readLineage(path); ok || err == nil {
			t.Errorf("%q was read", bad)
		}
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	// One of the version before: its witness was hashed otherwise.
	b, err = seal(lineageMagic1, fileLineage{ClusterID: 7, Epoch: "e", Revision: 20, Key: "k", Mod: 12, Hash: 99, At: 18, Clock: int64(time.Minute)})
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	want.witness, want.gone = witness{}, tombstone{}
	if got, clock, ok, err := readLineage(path); !ok || err != nil || got != want || clock != time.Minute {
		t.Fatalf("version 1: got %+v, %s, %v, %v; want %+v", got, clock, ok, err, want)
	}
}

// TestFilesOfAnySize: what is larger than any file of ours is not read into memory.
func TestFilesOfAnySize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lineage")
	for _, p := range []string{path, heldPath(path)} {
		f, err := os.Create(p)
		if err == nil {
			err = errors.Join(f.Truncate(maxFile+1), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, _, ok, err := readLineage(path); ok || err == nil || !strings.Contains(err.Error(), "256 MiB") {
		t.Errorf("lineage: %v, %v", ok, err)
	}
	if h, err := readHeld(path); err == nil || !strings.Contains(err.Error(), "256 MiB") || h.rows == nil {
		t.Errorf("held: %v, %v", h, err)
	}
}

func FuzzLineage(f *testing.F) {
	b, err := encodeLineage(lineage{7, "e", 20, witness{"k", 12, 99, true, 18}, tombstone{"k", 17}}, time.Minute)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		l, clock, err := decodeLineage(b)
		if err != nil {
			return
		}
		out, err := encodeLineage(l, clock)
		if err != nil {
			t.Fatal(err)
		}
		if again, _, err := decodeLineage(out); err != nil || again != l {
			t.Fatalf("got %+v, %v; want %+v", again, err, l)
		}
	})
}

func TestHeldFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "lineage")
	at := time.Unix(1700000000, 0).UTC()
	if h, err := readHeld(path); err != nil || len(h.rows) != 0 {
		t.Fatalf("no file: %+v, %v", h, err)
	}
	early, late := heldGroup{"n0", WhyLineage, 10, time.Second}, heldGroup{"n1", WhySpan, 12, -time.Second}
	want := heldOnDisk{at, "why", true, map[string]map[string]carriedRow{
		"ips":   {"a": {early, at}, "b": {early, at}, "c": {late, at.Add(time.Second)}},
		"nodes": {"n": {late, at}},
	}}
	if err := writeHeld(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := readHeld(path)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got %+v, %v; want %+v", got, err, want)
	}
	b, err := os.ReadFile(heldPath(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", string(b[:len(b)-1]), strings.Replace(string(b), `"n0"`, `"n2"`, 1)} {
		if err := os.WriteFile(heldPath(path), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if h, err := readHeld(path); err == nil || len(h.rows) != 0 {
			t.Errorf("%q was read", bad)
		}
	}
	if err := writeHeld(path, heldOnDisk{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(heldPath(path)); !os.IsNotExist(err) {
		t.Errorf("the file stays: %v", err)
	}
}

func FuzzHeld(f *testing.F) {
	at := time.Unix(1700000000, 0).UTC()
	b, err := encodeHeld(heldOnDisk{at, "why", true, map[string]map[string]carriedRow{"ips": {"a": {heldGroup{"n0", WhyLineage, 10, 1}, at}}}})
	if err != nil {
		f.Fatal(err)
	}
	_, body, _ := bytes.Cut(b, []byte("\n"))
	f.Add(b, false)
	f.Add(body, true)
	f.Fuzz(func(t *testing.T, b []byte, right bool) {
		if right { // a checksum that fits, else nothing behind it is ever reached
			sum := sha256.Sum256(b)
			b = append([]byte(heldMagic+hex.EncodeToString(sum[:])+"\n"), b...)
		}
		h, err := decodeHeld(b)
		if err != nil {
			return
		}
		out, err := encodeHeld(h)
		if err != nil {
			return // a time that cannot be written
		}
		again, err := decodeHeld(out)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := encodeHeld(again); err != nil || !bytes.Equal(twice, out) {
			t.Fatalf("got %s, %v; want %s", twice, err, out)
		}
	})
}
