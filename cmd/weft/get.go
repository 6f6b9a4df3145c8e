// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/agent/api"
)

func getCommand(a *app) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use: "get [TABLE [KEY]]", Short: "Print the rows the agent works from, with revision, age, source and outcome",
		Long: "Print the rows of a table, each with its revision, age, source and outcome.\n" +
			"Without a table, print the tables.",
		Args:              atMost(2),
		ValidArgsFunction: a.completeTable,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 && watch:
				return usage(cmd, errors.New("--watch needs a table"))
			case len(args) == 0:
				return getTables(cmd.Context(), a)
			}
			key := ""
			if len(args) == 2 {
				key = args[1]
			}
			if watch {
				return watchTable(cmd.Context(), a, args[0], key)
			}
			return getTable(cmd.Context(), a, args[0], key)
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on with every change")
	return cmd
}

type tableView struct {
	Name       string       `json:"name"`
	About      string       `json:"about"`
	Rows       uint64       `json:"rows"`
	Revision   uint64       `json:"revision"`
	Synced     bool         `json:"synced"`
	Reconciled bool         `json:"reconciled"`
	Sources    []sourceView `json:"sources"`
}

type sourceView struct {
	Name      string `json:"name"`
	Synced    bool   `json:"synced"`
	Rows      uint64 `json:"rows"`
	Confirmed any    `json:"confirmed,omitempty"`
}

func getTables(ctx context.Context, a *app) error {
	c, conn, err := a.client()
	if err != nil {
		return err
	}
	defer conn.Close()
	reply, err := c.TableList(ctx, &api.TableListRequest{})
	if err != nil {
		return err
	}
	var views []tableView
	for _, t := range reply.Tables {
		v := tableView{Name: t.Name, About: t.About, Rows: t.Rows, Revision: t.Revision, Synced: t.Synced, Reconciled: t.Reconciled}
		for _, s := range t.Sources {
			source := sourceView{Name: s.Name, Synced: s.Synced, Rows: s.Rows}
			if s.Confirmed != 0 {
				source.Confirmed = nanos(s.Confirmed)
			}
			v.Sources = append(v.Sources, source)
		}
		views = append(views, v)
	}
	return printList(a, views, []column[tableView]{
		{"TABLE", false, func(v tableView) string { return v.Name }},
		{"ROWS", false, func(v tableView) string { return strconv.FormatUint(v.Rows, 10) }},
		{"REVISION", false, func(v tableView) string { return strconv.FormatUint(v.Revision, 10) }},
		{"SYNCED", false, func(v tableView) string { return yesNo(v.Synced) }},
		{"CONFIRMED", false, func(v tableView) string { return v.confirmed() }},
		{"SOURCES", true, func(v tableView) string {
			text := ""
			for i, s := range v.Sources {
				if i > 0 {
					text += ","
				}
				text += fmt.Sprintf("%s:%d", s.Name, s.Rows)
				if !s.Synced {
					text += "(not synced)"
				}
			}
			return orDash(text)
		}},
		{"ABOUT", false, func(v tableView) string { return v.About }},
	})
}

// confirmed is when the source that was heard of least recently said last that its rows are so:
// rows are kept and stay synced while their store is away. "-": its sources are all within the agent.
func (v tableView) confirmed() string {
	var oldest time.Time
	for _, s := range v.Sources {
		if t, ok := s.Confirmed.(time.Time); ok && (oldest.IsZero() || t.Before(oldest)) {
			oldest = t
		}
	}
	if oldest.IsZero() {
		return "-"
	}
	return ago(oldest)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func rowColumns(wide bool) []column[row] {
	width := 80
	if wide {
		width = 1 << 20
	}
	return []column[row]{
		{"KEY", false, func(r row) string { return r.Key }},
		{"VALUE", false, func(r row) string { return orDash(short(summary(r.Value), width)) }},
		{"SOURCE", false, func(r row) string { return orDash(r.Source) }},
		{"ORIGIN", true, func(r row) string { return strconv.FormatInt(r.Origin, 10) }},
		{"REVISION", false, func(r row) string { return strconv.FormatUint(r.Revision, 10) }},
		{"AGE", false, func(r row) string { return age(r.Changed) }},
		{"OUTCOME", false, func(r row) string { return r.outcomeText() }},
	}
}

func getTable(ctx context.Context, a *app, table, key string) error {
	c, conn, err := a.client()
	if err != nil {
		return err
	}
	defer conn.Close()
	rows, err := readTable(ctx, c, table, key)
	if err != nil {
		return err
	}
	if key != "" && len(rows) == 0 {
		return hint(fmt.Errorf("%s %s: no such row", table, key), "weft get %s", table)
	}
	return printList(a, rows, rowColumns(a.format == formatWide))
}

func watchTable(ctx context.Context, a *app, table, key string) error {
	a.endless = true
	c, conn, err := a.client()
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := c.TableGet(ctx, &api.TableGetRequest{Table: table, Key: key, Watch: true})
	if err != nil {
		return err
	}
	for {
		item, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if r := item.GetRow(); r != nil {
			if err := printWatched(a, rowOf(r)); err != nil {
				return err
			}
		}
	}
}

func printWatched(a *app, r row) error {
	if a.format == formatJSON || a.format == formatYAML {
		return printItem(a.out, a.format, r)
	}
	verb := "put"
	if r.Deleted {
		verb = "delete"
	}
	width := 120
	if a.format == formatWide {
		width = 1 << 20
	}
	_, err := fmt.Fprintf(a.out, "%s %-6s %s  %s  source=%s revision=%d outcome=%s\n",
		r.Changed.Local().Format("15:04:05.000"), verb, r.Key, short(summary(r.Value), width), r.Source, r.Revision, r.outcomeText())
	return err
}
