// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"sigs.k8s.io/yaml"
)

// Formats of -o.
const (
	formatTable = "table"
	formatWide  = "wide"
	formatJSON  = "json"
	formatYAML  = "yaml"
)

// schemaName names the form of what json and yaml print; it changes when a field
// changes its meaning or goes.
const schemaName = "weft/v1"

func knownFormat(f string) bool {
	return f == formatTable || f == formatWide || f == formatJSON || f == formatYAML
}

// column is one column of a table of T.
type column[T any] struct {
	name string
	wide bool // only with -o wide
	cell func(T) string
}

// printList prints items in the chosen format. json and yaml print the items
// themselves, all fields.
func printList[T any](a *app, items []T, columns []column[T]) error {
	switch a.format {
	case formatJSON, formatYAML:
		if items == nil {
			items = []T{}
		}
		return printValue(a.out, a.format, map[string]any{"schema": schemaName, "items": items})
	}
	var rows [][]string
	var header []string
	for _, c := range columns {
		if !c.wide || a.format == formatWide {
			header = append(header, c.name)
		}
	}
	for _, item := range items {
		var row []string
		for _, c := range columns {
			if !c.wide || a.format == formatWide {
				row = append(row, c.cell(item))
			}
		}
		rows = append(rows, row)
	}
	printTable(a.out, header, rows)
	return nil
}

// printOne prints one object: json and yaml as it is, else by text.
func printOne(a *app, v any, text func(io.Writer)) error {
	if a.format == formatJSON || a.format == formatYAML {
		return printValue(a.out, a.format, v)
	}
	text(a.out)
	return nil
}

func printValue(w io.Writer, format string, v any) error {
	data, err := encode(v, "  ")
	if err != nil {
		return err
	}
	if format == formatYAML {
		if data, err = yaml.JSONToYAML(data); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	_, err = fmt.Fprintf(w, "%s\n", bytes.TrimRight(data, "\n"))
	return err
}

// printItem prints one item of an endless list: a line of json, or one yaml document.
func printItem(w io.Writer, format string, v any) error {
	if format == formatYAML {
		if _, err := fmt.Fprintln(w, "---"); err != nil {
			return err
		}
		return printValue(w, format, v)
	}
	data, err := encode(v, "")
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

// encode writes JSON as people read it: "->" is no HTML.
func encode(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("print: %w", err)
	}
	return b.Bytes(), nil
}

// printTable aligns columns by runes; the last column is not padded.
func printTable(w io.Writer, header []string, rows [][]string) {
	width := make([]int, len(header))
	all := append([][]string{header}, rows...)
	for _, row := range all {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range all {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// age prints how long ago t was, coarsely; "-" for never.
func age(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := time.Since(t)
	switch {
	case d < time.Second:
		return "now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// nanos turns the API's times into Go's; 0 is never.
func nanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// orDash prints "-" for nothing.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// short cuts a text to n runes.
func short(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-3]) + "..."
}
