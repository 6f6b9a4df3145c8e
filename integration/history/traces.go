// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"
)

// Traced says whose log is read.
type Traced struct {
	// By is the process, as the history names it.
	By string
	// Store is the cluster of the process: the store of every watch that names no other.
	Store string
	// Alone says that the process reads no other store: a watch that names another cluster is of its copy.
	Alone bool
	// Life names the lineage that a store was of at a time. Nil: there was only one, "1".
	Life func(store string, at time.Time) string
}

// traceLine is one line of a log, with the attributes by which kvstore's watches say what they see.
type traceLine struct {
	Time     time.Time        `json:"time"`
	Message  string           `json:"msg"`
	Part     string           `json:"part"`
	Table    string           `json:"table"`
	For      string           `json:"for"`
	Cluster  string           `json:"cluster"`
	Prefix   string           `json:"prefix"`
	Revision int64            `json:"revision"`
	Key      string           `json:"key"`
	Deleted  bool             `json:"deleted"`
	First    bool             `json:"first"`
	Rows     map[string]int64 `json:"rows"`
}

// traceOf is what was read of one watch.
type traceOf struct {
	rows    map[string]int64 // of the list in progress
	lineage string           // of the list or the stream
}

// Traces reads, from the log of a process at the level debug in JSON, what its watches were told: lists,
// changes and how far they are. A stream is of the lineage that the store was of when it was opened, so a
// watch that goes on over a store that was replaced is seen to do so. Lines that are something else are
// left out.
func Traces(from io.Reader, of Traced) ([]Record, error) {
	var records []Record
	watches := map[string]*traceOf{}
	in := bufio.NewReader(from)
	for {
		text, err := in.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read log of %s: %w", of.By, err)
		}
		var l traceLine
		if bytes.Contains(text, []byte(`"msg":"watch `)) && json.Unmarshal(text, &l) == nil {
			records = of.take(records, watches, l)
		}
		if err != nil {
			return records, nil
		}
	}
}

func (of Traced) take(records []Record, watches map[string]*traceOf, l traceLine) []Record {
	r := Record{At: l.Time, By: of.By, Store: of.Store, Prefix: l.Prefix, Revision: l.Revision}
	for _, name := range []string{l.Part, l.Table, l.For} {
		if name != "" {
			r.By += " " + name
		}
	}
	switch {
	case l.Cluster == "":
	case of.Alone:
		r.By += " of " + l.Cluster
	default:
		r.Store = l.Cluster
	}
	id := r.By + "\x00" + r.Store + "\x00" + r.Prefix
	w := watches[id]
	if w == nil {
		w = &traceOf{}
		watches[id] = w
	}
	life := func() string {
		if of.Life == nil {
			return "1"
		}
		return of.Life(r.Store, l.Time)
	}
	switch l.Message {
	case "watch lists a page":
		if l.First || w.rows == nil {
			w.rows = map[string]int64{}
		}
		maps.Copy(w.rows, l.Rows)
		w.lineage = life()
		return records
	case "watch is open":
		w.lineage = life()
		return records
	case "watch has listed":
		r.Kind, r.Rows = Listed, w.rows
		w.rows = nil
	case "watch sees a change":
		r.Kind, r.Key, r.Deleted = Event, l.Key, l.Deleted
	case "watch is confirmed":
		r.Kind = Confirmed
	default:
		return records
	}
	r.Lineage = w.lineage
	return append(records, r)
}
