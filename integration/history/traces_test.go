// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package history

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// traceLog is a log as an agent writes it, with lines of others in between.
const traceLog = `{"time":"2026-01-01T12:00:01Z","level":"DEBUG","msg":"watch lists a page","part":"watch","table":"ips","prefix":"ip/","first":true,"rows":{"ip/a":3}}
{"time":"2026-01-01T12:00:01Z","level":"DEBUG","msg":"watch lists a page","part":"watch","table":"ips","prefix":"ip/","first":false,"rows":{"ip/b":4}}
{"time":"2026-01-01T12:00:02Z","level":"DEBUG","msg":"watch has listed","part":"watch","table":"ips","prefix":"ip/","revision":5,"continuity":"first"}
goroutine 7 [running]:
{"time":"2026-01-01T12:00:02Z","level":"INFO","msg":"prefix listed","prefix":"ip/","rows":2}
{"time":"2026-01-01T12:00:03Z","level":"DEBUG","msg":"watch is open","part":"watch","table":"ips","prefix":"ip/","after":5,"revision":5}
{"time":"2026-01-01T12:00:04Z","level":"DEBUG","msg":"watch sees a change","part":"watch","table":"ips","prefix":"ip/","revision":6,"key":"ip/a","deleted":true}
{"time":"2026-01-01T12:00:04Z","level":"DEBUG","msg":"watch is confirmed","part":"watch","table":"ips","prefix":"ip/","revision":6}
{"time":"2026-01-01T12:00:05Z","level":"DEBUG","msg":"watch lists a page","cluster":"west","for":"guard","prefix":"ip/","first":true,"rows":{}}
{"time":"2026-01-01T12:00:05Z","level":"DEBUG","msg":"watch has listed","cluster":"west","for":"guard","prefix":"ip/","revision":9}
{"time":"2026-01-01T12:00:06Z","level":"DEBUG","msg":"watch sees a ch`

// lifeOf is a store that was replaced some seconds after noon.
func lifeOf(seconds float64) func(string, time.Time) string {
	return func(_ string, t time.Time) string {
		if t.Before(at(seconds)) {
			return "1"
		}
		return "2"
	}
}

func TestTraces(t *testing.T) {
	got, err := Traces(strings.NewReader(traceLog), Traced{By: "n1", Store: "east", Life: lifeOf(2.5)})
	if err != nil {
		t.Fatal(err)
	}
	of := func(seconds float64, kind Kind, lineage string, revision int64) Record {
		return Record{At: at(seconds), Kind: kind, By: "n1 watch ips", Store: "east", Lineage: lineage, Prefix: "ip/", Revision: revision}
	}
	list, change := of(2, Listed, "1", 5), of(4, Event, "2", 6)
	list.Rows = map[string]int64{"ip/a": 3, "ip/b": 4}
	change.Key, change.Deleted = "ip/a", true
	remote := Record{At: at(5), Kind: Listed, By: "n1 guard", Store: "west", Lineage: "2", Prefix: "ip/", Revision: 9, Rows: map[string]int64{}}
	if diff := cmp.Diff([]Record{list, change, of(4, Confirmed, "2", 6), remote}, got); diff != "" {
		t.Errorf("records (-want +got): %s", diff)
	}
	// The stream was opened over another store than the list was of.
	if all := Check(got, Limits{}); len(all) != 1 || all[0].Broke != ErrBrokeNoGap {
		t.Errorf("a watch that went on over another store: %v", all)
	}
	got, err = Traces(strings.NewReader(traceLog), Traced{By: "n1", Store: "east"})
	if err != nil {
		t.Fatal(err)
	}
	if all := Check(got, Limits{}); len(all) != 0 {
		t.Errorf("one store: %v", all)
	}
	// What a process that reads no other store says of another cluster is of the copy in its own.
	got, err = Traces(strings.NewReader(traceLog), Traced{By: "n1", Store: "east", Alone: true})
	if err != nil {
		t.Fatal(err)
	}
	remote.By, remote.Store, remote.Lineage = "n1 guard of west", "east", "1"
	if diff := cmp.Diff(remote, got[len(got)-1]); diff != "" {
		t.Errorf("record of a copy (-want +got): %s", diff)
	}
}

func FuzzTraces(f *testing.F) {
	f.Add([]byte(traceLog))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, err := Traces(bytes.NewReader(b), Traced{By: "n1", Store: "east"})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if r.Kind == "" || !strings.HasPrefix(r.By, "n1") || r.Store == "" {
				t.Errorf("record %+v", r)
			}
		}
	})
}
