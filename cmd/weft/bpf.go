// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/agent/api"
)

// bpfViews are the sub-commands of bpf and the maps each of them prints.
func bpfViews() []struct {
	name, about string
	maps        []string
} {
	return []struct {
		name, about string
		maps        []string
	}{
		{"flows", "connections", []string{"flows", "flows_young"}},
		{"ipcache", "addresses and prefixes with identity and node", []string{"ipcache", "ipcache_prefix"}},
		{"lb", "frontends and backends of services", []string{"frontends", "backends"}},
		{"endpoint", "endpoints of this node by slot", []string{"endpoints"}},
		{"nodes", "tunnel addresses of nodes", []string{"nodes"}},
		{"metrics", "packets and bytes by reason and direction", []string{"counters"}},
	}
}

func bpfCommand(a *app) *cobra.Command {
	cmd := group("bpf", "What the kernel has")
	for _, v := range bpfViews() {
		cmd.AddCommand(group(v.name, "In the kernel: "+v.about, bpfList(a, v.about, v.maps)))
	}
	return cmd
}

type mapEntry struct {
	Map   string          `json:"map"`
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
}

func bpfList(a *app, about string, maps []string) *cobra.Command {
	var limit uint32
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List " + about + " as they stand in the BPF maps", Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, conn, err := a.client()
			if err != nil {
				return err
			}
			defer conn.Close()
			var entries []mapEntry
			for _, name := range maps {
				more, err := readMap(cmd.Context(), c, name, limit)
				if err != nil {
					return fmt.Errorf("map %s: %w", name, err)
				}
				entries = append(entries, more...)
			}
			if a.format == formatJSON || a.format == formatYAML {
				return printList(a, entries, nil)
			}
			printMaps(a, maps, entries)
			return nil
		},
	}
	cmd.Flags().Uint32Var(&limit, "limit", 0, "at most so many entries of each map; 0 is all")
	return cmd
}

func readMap(ctx context.Context, c api.AgentClient, name string, limit uint32) ([]mapEntry, error) {
	stream, err := c.MapGet(ctx, &api.MapGetRequest{Map: name, Limit: limit})
	if err != nil {
		return nil, err
	}
	var entries []mapEntry
	for {
		e, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			slices.SortStableFunc(entries, func(a, b mapEntry) int { return strings.Compare(a.Key, b.Key) })
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, mapEntry{name, e.Key, e.Value})
	}
}

// printMaps prints one table per map; the columns are the fields of its values.
func printMaps(a *app, maps []string, entries []mapEntry) {
	for i, name := range maps {
		var of []mapEntry
		for _, e := range entries {
			if e.Map == name {
				of = append(of, e)
			}
		}
		if len(maps) > 1 {
			if i > 0 {
				fmt.Fprintln(a.out)
			}
			fmt.Fprintf(a.out, "%s (%d)\n", name, len(of))
		}
		header, rows := fields(of)
		printTable(a.out, header, rows)
	}
}

// fields makes a column of every field that some entry has.
func fields(entries []mapEntry) (header []string, rows [][]string) {
	values := make([]map[string]any, len(entries))
	names := map[string]any{}
	for i, e := range entries {
		if json.Unmarshal(e.Value, &values[i]) != nil {
			values[i] = map[string]any{"value": string(e.Value)}
		}
		for k, v := range values[i] {
			if !empty(v) {
				names[k] = nil
			}
		}
	}
	columns := sortedKeys(names)
	header = []string{"KEY"}
	for _, c := range columns {
		header = append(header, strings.ToUpper(c))
	}
	for i, e := range entries {
		row := []string{e.Key}
		for _, c := range columns {
			row = append(row, orDash(flat(values[i][c])))
		}
		rows = append(rows, row)
	}
	return header, rows
}
