// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package history

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// at is a time some seconds after noon.
func at(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }

func base(lineage string, revision int64, rows map[string]int64) Record {
	return Record{Kind: Base, Store: "east", Lineage: lineage, Revision: revision, Rows: rows}
}

func write(revision int64, key string) Record {
	return Record{Kind: Write, Store: "east", Lineage: "1", Revision: revision, Key: key}
}

func watched(kind Kind, revision int64, key string) Record {
	return Record{Kind: kind, By: "n1", Store: "east", Lineage: "1", Prefix: "ip/", Revision: revision, Key: key}
}

func listed(revision int64, rows map[string]int64) Record {
	r := watched(Listed, revision, "")
	r.Rows = rows
	return r
}

func table(revision int64, rows map[string]int64, hold ...string) Record {
	r := listed(revision, rows)
	r.Kind, r.Hold = Table, hold
	return r
}

func deleted(r Record) Record { r.Deleted = true; return r }

func in(lineage string, r Record) Record { r.Lineage = lineage; return r }

func ofRow(seconds float64, kind Kind, by string) Record {
	return Record{At: at(seconds), Kind: kind, By: by, Store: "east", Prefix: "ips", Key: "10.1.1.2"}
}

func number(kind Kind, by, labels string, n uint32) Record {
	return Record{Kind: kind, By: by, Store: "east", Labels: labels, Number: n}
}

func fault(seconds float64, kind Kind, name string) Record {
	return Record{At: at(seconds), Kind: kind, Name: name, Store: "east"}
}

func connect(seconds float64, problem string) Record {
	return Record{At: at(seconds), Kind: Connect, By: "pod", To: "10.96.0.10:13", Error: problem, Took: time.Second}
}

func message(number int, problem string) Record {
	return Record{At: at(float64(number)), Kind: Message, By: "pod", Session: 3, Message: number, Error: problem}
}

func cutData(seconds float64, kind Kind) Record {
	r := fault(seconds, kind, "data link of east")
	r.Data = true
	return r
}

// TestCheck judges for each guarantee histories that break it, and ones that just do not.
func TestCheck(t *testing.T) {
	rows := map[string]int64{"ip/a": 3, "ip/b": 4}
	begin := []Record{base("1", 5, rows), listed(5, rows)}
	add := func(more ...Record) []Record { return append(append([]Record{}, begin...), more...) }
	tests := map[string]struct {
		history []Record
		want    error // nil: nothing is broken
		excerpt int   // records that show it
	}{
		"ordered-events":              {history: add(watched(Event, 6, "ip/a"), watched(Event, 7, "ip/b"))},
		"ordered-one-revision":        {history: add(watched(Event, 6, "ip/a"), watched(Event, 6, "ip/b"), watched(Confirmed, 6, ""))},
		"ordered-back":                {add(watched(Event, 7, "ip/a"), watched(Event, 6, "ip/b"), watched(Event, 8, "ip/c")), ErrBrokeOrdered, 3},
		"ordered-after-confirmed":     {add(watched(Event, 6, "ip/x"), watched(Confirmed, 9, ""), watched(Event, 8, "ip/a")), ErrBrokeOrdered, 3},
		"ordered-confirmed-back":      {add(watched(Confirmed, 9, ""), watched(Confirmed, 8, "")), ErrBrokeOrdered, 3},
		"ordered-list-back":           {add(watched(Confirmed, 9, ""), listed(7, rows)), ErrBrokeOrdered, 3},
		"ordered-list-of-a-new-store": {history: add(watched(Confirmed, 9, ""), in("2", listed(1, nil)))},

		"gap-none":           {history: add(write(6, "ip/a"), write(7, "other/a"), watched(Event, 6, "ip/a"), watched(Confirmed, 7, ""))},
		"gap-not-yet":        {history: add(write(6, "ip/a"), watched(Confirmed, 5, ""))},
		"gap-same-revision":  {history: add(write(6, "ip/a"), write(6, "ip/b"), watched(Event, 6, "ip/b"), watched(Event, 6, "ip/a"), watched(Confirmed, 6, ""))},
		"gap-list-instead":   {history: add(write(6, "ip/a"), listed(6, map[string]int64{"ip/a": 6, "ip/b": 4}))},
		"gap-confirmed":      {add(write(6, "ip/a"), write(7, "ip/b"), watched(Event, 7, "ip/b"), watched(Confirmed, 7, "")), ErrBrokeNoGap, 4},
		"gap-skipped":        {add(write(6, "ip/a"), write(7, "ip/b"), watched(Event, 7, "ip/b")), ErrBrokeNoGap, 4},
		"gap-deletion":       {add(deleted(write(6, "ip/a")), watched(Confirmed, 6, "")), ErrBrokeNoGap, 4},
		"gap-other-store":    {add(base("2", 1, nil), in("2", watched(Event, 9, "ip/a"))), ErrBrokeNoGap, 2},
		"gap-rolled-back":    {history: add(base("2", 6, rows), in("2", watched(Confirmed, 6, "")))},
		"gap-rolled-too-far": {add(base("2", 4, rows), in("2", watched(Confirmed, 6, ""))), ErrBrokeNoGap, 2},
		"gap-another-row":    {add(base("2", 6, map[string]int64{"ip/a": 3, "ip/b": 5}), in("2", watched(Confirmed, 6, ""))), ErrBrokeNoGap, 2},
		"gap-written-late":   {add(watched(Event, 6, "ip/a"), write(6, "ip/a"), watched(Confirmed, 6, "")), nil, 0},
		"duplicate":          {add(watched(Event, 6, "ip/a"), watched(Event, 6, "ip/a")), ErrBrokeNoDuplicate, 3},
		"duplicate-of-list":  {add(watched(Event, 4, "ip/b")), ErrBrokeNoDuplicate, 2},
		"duplicate-relisted": {history: add(write(6, "ip/a"), watched(Event, 6, "ip/a"), in("2", listed(2, nil)), in("2", watched(Event, 6, "ip/a")))},

		"stale-none":        {history: add(write(6, "ip/a"), table(6, map[string]int64{"ip/a": 6, "ip/b": 4}))},
		"stale-older":       {history: add(write(6, "ip/a"), table(5, rows))},
		"stale-value":       {add(write(6, "ip/a"), write(7, "ip/c"), table(6, rows)), ErrBrokeNoStale, 3},
		"stale-deleted":     {add(deleted(write(6, "ip/a")), table(6, rows)), ErrBrokeNoStale, 3},
		"stale-held":        {history: add(deleted(write(6, "ip/a")), table(6, rows, "ip/a"))},
		"stale-held-value":  {add(write(6, "ip/a"), table(6, rows, "ip/a")), ErrBrokeNoStale, 3},
		"stale-missing":     {add(write(6, "ip/c"), table(6, rows)), ErrBrokeNoStale, 3},
		"stale-by-server":   {[]Record{base("1", 5, rows), listed(5, map[string]int64{"ip/a": 3, "ip/b": 4, "ip/lost": heldByServer})}, nil, 0},
		"stale-list":        {[]Record{base("1", 5, rows), listed(5, map[string]int64{"ip/a": 3})}, ErrBrokeNoStale, 2},
		"stale-unknown":     {history: add(table(9, nil))},
		"stale-followed":    {add(Record{Kind: Followed, Store: "east", Lineage: "1", Revision: 9}, table(9, map[string]int64{"ip/a": 3})), ErrBrokeNoStale, 3},
		"stale-other-store": {history: add(in("2", table(5, nil)))},

		"mass-delete-deleted":     {history: []Record{ofRow(0, Born, "o"), ofRow(1, Here, "n1"), ofRow(2, Died, "o"), ofRow(3, Gone, "n1"), ofRow(90, Here, "n2"), ofRow(91, Gone, "n2")}},
		"mass-delete-alive":       {[]Record{ofRow(0, Born, "o"), ofRow(1, Here, "n1"), ofRow(1, Here, "n2"), fault(2, Fault, "etcd wiped"), ofRow(3, Gone, "n1")}, ErrBrokeMassDelete, 3},
		"mass-delete-born-again":  {[]Record{ofRow(0, Born, "o"), ofRow(1, Here, "n1"), ofRow(2, Died, "o"), ofRow(3, Born, "o"), ofRow(4, Gone, "n1")}, ErrBrokeMassDelete, 3},
		"mass-delete-nobodys":     {history: []Record{ofRow(1, Here, "n1"), ofRow(4, Gone, "n1")}},
		"mass-delete-late":        {[]Record{ofRow(0, Born, "o"), ofRow(1, Here, "n1"), ofRow(2, Died, "o"), connect(5, ""), connect(13, "")}, ErrBrokeMassDelete, 3},
		"mass-delete-in-time":     {history: []Record{ofRow(0, Born, "o"), ofRow(1, Here, "n1"), ofRow(2, Died, "o"), connect(12, "")}},
		"mass-delete-during":      {history: []Record{ofRow(0, Born, "o"), ofRow(1, Here, "n1"), fault(1, Fault, "etcd killed"), ofRow(2, Died, "o"), connect(50, ""), fault(60, Healed, "etcd killed"), connect(69, ""), ofRow(70, Gone, "n1")}},
		"mass-delete-after":       {[]Record{ofRow(0, Born, "o"), ofRow(1, Here, "n1"), fault(1, Fault, "etcd killed"), ofRow(2, Died, "o"), fault(60, Healed, "etcd killed"), connect(71, "")}, ErrBrokeMassDelete, 3},
		"mass-delete-resurrected": {[]Record{ofRow(0, Born, "o"), ofRow(2, Died, "o"), ofRow(3, Here, "n1"), connect(14, "")}, ErrBrokeMassDelete, 3},

		"number-one":         {history: []Record{number(Uses, "n1", "app=a", 7), number(Uses, "n2", "app=a", 7), number(Uses, "n1", "app=b", 8)}},
		"number-two":         {[]Record{number(Uses, "n1", "app=a", 7), number(Uses, "n3", "app=c", 9), number(Uses, "n2", "app=a", 8)}, ErrBrokeOneNumber, 2},
		"number-shared":      {[]Record{number(Uses, "n1", "app=a", 7), number(Uses, "n2", "app=b", 7)}, ErrBrokeOneNumber, 2},
		"number-changed":     {[]Record{number(Uses, "n1", "app=a", 7), number(Uses, "n1", "app=a", 8)}, ErrBrokeOneNumber, 2},
		"number-freed":       {history: []Record{number(Uses, "n1", "app=a", 7), number(Frees, "n1", "app=a", 7), number(Uses, "n2", "app=b", 7), number(Uses, "n1", "app=a", 8)}},
		"number-still-held":  {[]Record{number(Uses, "n1", "app=a", 7), number(Uses, "n2", "app=a", 7), number(Frees, "n1", "app=a", 7), number(Uses, "n1", "app=b", 7)}, ErrBrokeOneNumber, 2},
		"number-of-clusters": {history: []Record{number(Uses, "n1", "app=a", 7), {Kind: Uses, By: "n2", Store: "west", Labels: "app=a", Number: 8}}},

		"invisible":             {history: []Record{connect(1, ""), message(1, ""), message(2, "")}},
		"invisible-failed":      {[]Record{connect(1, ""), connect(2, "refused")}, ErrBrokeInvisible, 1},
		"invisible-reset":       {[]Record{message(1, ""), message(2, "reset by peer")}, ErrBrokeInvisible, 1},
		"invisible-lost":        {[]Record{message(1, ""), message(2, ""), message(4, "")}, ErrBrokeInvisible, 2},
		"invisible-cut":         {history: []Record{cutData(1, Fault), connect(2, "timeout"), cutData(3, Healed)}},
		"invisible-cut-overlap": {history: []Record{connect(1, "timeout"), cutData(1.5, Fault), cutData(3, Healed)}},
		"invisible-cut-over":    {[]Record{cutData(1, Fault), cutData(3, Healed), connect(4, "timeout")}, ErrBrokeInvisible, 1},
		"invisible-other-fault": {[]Record{fault(1, Fault, "etcd wiped"), connect(2, "timeout")}, ErrBrokeInvisible, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := Check(tt.history, Limits{})
			if tt.want == nil {
				for _, v := range got {
					t.Error(v)
				}
				return
			}
			if len(got) != 1 || !errors.Is(got[0], tt.want) {
				t.Fatalf("got %v, want once %v", got, tt.want)
			}
			if len(got[0].Excerpt) != tt.excerpt {
				t.Errorf("excerpt of %d records, want %d: %v", len(got[0].Excerpt), tt.excerpt, got[0])
			}
		})
	}
}

func TestViolation_TellsWhatItIsAbout(t *testing.T) {
	rows := map[string]int64{"ip/a": 3, "ip/b": 4}
	got := Check([]Record{
		base("1", 5, rows), fault(1, Fault, "etcd/east compacted"), fault(1, Fault, "agent/n1 killed"), fault(2, Healed, "agent/n1 killed"),
		write(6, "ip/c"), deleted(write(7, "ip/a")), table(7, map[string]int64{"ip/a": 3, "ip/b": 4, "ip/c": 6}),
	}, Limits{})
	if len(got) != 1 {
		t.Fatalf("got %v, want one violation", got)
	}
	v := got[0]
	want := []Record{base("1", 5, map[string]int64{"ip/a": 3}), deleted(write(7, "ip/a")), table(7, map[string]int64{"ip/a": 3})}
	if diff := cmp.Diff(want, v.Excerpt); diff != "" {
		t.Errorf("excerpt (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"etcd/east compacted"}, v.During); diff != "" {
		t.Errorf("during (-want +got):\n%s", diff)
	}
	for _, part := range []string{"broke no stale after sync", "table of n1 at revision 7 has ip/a as of 3, the store has it not at all", "during etcd/east compacted", "revision=7 deleted"} {
		if !strings.Contains(v.Error(), part) {
			t.Errorf("text lacks %q:\n%v", part, v)
		}
	}
}

func TestRead(t *testing.T) {
	want := []Record{base("1", 5, map[string]int64{"a": 1}), connect(2, "refused"), ofRow(1, Born, "o")}
	var file bytes.Buffer
	rec := NewRecorder(&file)
	for _, r := range want {
		rec.Add(r)
	}
	if err := rec.Err(); err != nil {
		t.Fatal(err)
	}
	kept := rec.Records()
	file.WriteString(`{"kind":"conn`) // killed in the middle of a line
	got, err := Read(&file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(kept, got, cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	if _, err := Read(strings.NewReader("{\"kind\":\"connect\"}\n[]\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("error %v, want one that names line 2", err)
	}
}

func TestMerge(t *testing.T) {
	got := Merge([]Record{connect(1, "a"), connect(3, "b")}, []Record{connect(1, "c"), connect(2, "d")})
	var order string
	for _, r := range got {
		order += r.Error
	}
	if order != "acdb" {
		t.Errorf("order %q, want acdb", order)
	}
}

// FuzzRead feeds files that no recorder wrote. What is read is judged, too.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"kind":"base","store":"e","lineage":"1","revision":5,"rows":{"a":1}}` + "\n" + `{"kind":"table","store":"e","lineage":"1","revision":5}` + "\n"))
	f.Add([]byte(`{"kind":"write","revision":-3}` + "\n\n" + `{"at":"2026-01-01T00:00:00Z","kind":"healed","data":true}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, err := Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, v := range Check(records, Limits{}) {
			if len(v.Excerpt) > len(records) {
				t.Errorf("excerpt longer than the history: %v", v)
			}
		}
	})
}
