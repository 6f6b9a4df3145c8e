// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Run is one run of the command in the result file.
type Run struct {
	Time      time.Time `json:"time"`
	Machine   Machine   `json:"machine"`
	Rotations int       `json:"rotations"`
	SlotMS    int64     `json:"slot_ms"`
	Family    int       `json:"family"`
	Lines     []Line    `json:"lines"`

	Programs []ProgramTime `json:"programs,omitempty"`
}

// print writes a result as one line.
func (l Line) print(w io.Writer) {
	var b strings.Builder
	fmt.Fprintf(&b, "%-9s", l.Row)
	if l.Of != "" {
		fmt.Fprintf(&b, " %-7s %-28s", l.Workload, l.Of+" / "+l.To)
	} else {
		fmt.Fprintf(&b, " %-36s", l.What)
	}
	if l.Ratio != 0 {
		fmt.Fprintf(&b, " %.3f", l.Ratio)
	}
	if l.P50 != 0 {
		fmt.Fprintf(&b, " (p50 %.3f: %.2f / %.2f us)", l.P50, l.OfNS/1e3, l.ToNS/1e3)
	}
	if l.CPU != 0 && l.P50 != 0 {
		fmt.Fprintf(&b, " (cpu %.3f)", l.CPU)
	}
	switch {
	case l.Goal == 0:
	case l.Met:
		fmt.Fprintf(&b, " goal >= %.2f met", l.Goal)
	default:
		fmt.Fprintf(&b, " goal >= %.2f MISSED", l.Goal)
	}
	if l.Valid {
		b.WriteString(" valid")
	} else {
		fmt.Fprintf(&b, " VOID: %s", l.Why)
	}
	fmt.Fprintln(w, b.String())
}

// save appends a run to the result file, which holds a JSON array of runs. The file is replaced in
// one step; a file that does not parse is an error and stays as it is.
func save(path string, run Run) error {
	var runs []Run
	old, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("save results: %w", err)
	default:
		if err := json.Unmarshal(old, &runs); err != nil {
			return fmt.Errorf("save results: %s: %w", path, err)
		}
	}
	b, err := json.MarshalIndent(append(runs, run), "", " ")
	if err != nil {
		return fmt.Errorf("save results: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("save results: %w", err)
	}
	next := path + ".new"
	if err := os.WriteFile(next, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("save results: %w", err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("save results: %w", err)
	}
	return nil
}
