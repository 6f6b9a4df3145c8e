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
	"slices"
	"sync"
	"time"
)

// Recorder collects records from many goroutines.
type Recorder struct {
	mu      sync.Mutex
	records []Record
	enc     *json.Encoder
	err     error
}

// NewRecorder returns a recorder that also writes each record to w as a line of JSON. A nil w
// keeps them in memory only.
func NewRecorder(w io.Writer) *Recorder {
	r := &Recorder{}
	if w != nil {
		r.enc = json.NewEncoder(w)
	}
	return r
}

// Add takes a record. One without a time gets the present one, in the order of the calls.
func (r *Recorder) Add(rec Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec.At.IsZero() {
		rec.At = time.Now()
	}
	r.records = append(r.records, rec)
	if r.enc != nil && r.err == nil {
		if err := r.enc.Encode(rec); err != nil {
			r.err = fmt.Errorf("write history: %w", err)
		}
	}
}

// Records are those taken so far, in the order of the calls.
func (r *Recorder) Records() []Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.records)
}

// Err is the first error of writing.
func (r *Recorder) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Read reads what a recorder wrote. A last line without an end is what a killed process leaves; it
// is left out.
func Read(from io.Reader) ([]Record, error) {
	var records []Record
	in := bufio.NewReader(from)
	for number := 1; ; number++ {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return records, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read history: %w", err)
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var r Record
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("read history: line %d: %w", number, err)
		}
		records = append(records, r)
	}
}

// Merge joins histories that were recorded apart into one, by time. Records of one history with the
// same time keep their order.
func Merge(histories ...[]Record) []Record {
	all := slices.Concat(histories...)
	slices.SortStableFunc(all, func(a, b Record) int { return a.At.Compare(b.At) })
	return all
}
