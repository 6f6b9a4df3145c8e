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
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/agent"
	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/datapath"
)

// bpfFlags choose a node's pins instead of asking an agent.
type bpfFlags struct{ node, bpffs string }

func bpfCommand(a *app) *cobra.Command {
	var flags bpfFlags
	cmd := group("bpf", "What the kernel has")
	cmd.PersistentFlags().StringVar(&flags.node, "node", "", "read the pinned maps of this node, without its agent")
	cmd.PersistentFlags().StringVar(&flags.bpffs, "bpffs", a.getenv("WEFT_BPFFS", agent.DefaultConfig().BPFFS),
		"mount point of the BPF file system, with --node (WEFT_BPFFS)")
	for _, v := range agent.MapViews("", "") {
		cmd.AddCommand(group(v.Name, "In the kernel: "+v.About, bpfList(a, &flags, v.Name, v.About)))
	}
	cmd.AddCommand(bpfCleanup(a, &flags))
	return cmd
}

// bpfCleanup empties a node that has no agent any more.
func bpfCleanup(a *app, from *bpfFlags) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "cleanup --node NAME --yes", Short: "Remove everything of a node without agent: programs, maps, devices, routes", Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case from.node == "":
				return usage(cmd, errors.New("--node is missing"))
			case !yes:
				return usage(cmd, errors.New("--yes is missing: every endpoint of this node loses its network"))
			}
			if err := a.needsRoot("cleanup removes programs, maps and devices"); err != nil {
				return err
			}
			if err := from.mayCleanup(cmd.Context(), a); err != nil {
				return err
			}
			return datapath.Cleanup(cmd.Context(), datapath.CleanupConfig{BPFRoot: from.bpffs, NodeName: from.node})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "really")
	return cmd
}

// mayCleanup refuses a node that was never here and one that is alive: devices do not say whose they
// are, and a wrong name must not cost another node its network.
func (f *bpfFlags) mayCleanup(ctx context.Context, a *app) error {
	nodes, err := datapath.PinnedNodes(f.bpffs)
	if err != nil {
		return err
	}
	if !slices.Contains(nodes, f.node) {
		have := "no node has"
		if len(nodes) > 0 {
			have = "there are those of " + strings.Join(nodes, ", ")
		}
		return hint(fmt.Errorf("no pins of node %q in %s: %s", f.node, f.bpffs, have), "check --node and --bpffs")
	}
	c, conn, err := a.client()
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = c.Status(ctx, &api.StatusRequest{})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if status.Code(err) != codes.Unavailable {
		return hint(fmt.Errorf("an agent answers on %s: a node that is in use is not emptied", a.socket),
			"stop the agent of the node, then do this again")
	}
	return nil
}

type mapEntry struct {
	Map   string          `json:"map"`
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
}

func bpfList(a *app, from *bpfFlags, name, about string) *cobra.Command {
	var limit uint32
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List " + about + " as they stand in the BPF maps", Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			entries, err := from.read(cmd.Context(), a, name, limit)
			if err != nil {
				return err
			}
			if a.format == formatJSON || a.format == formatYAML {
				return printList(a, entries, nil)
			}
			header, rows := fields(name, entries)
			printTable(a.out, header, rows)
			return nil
		},
	}
	cmd.Flags().Uint32Var(&limit, "limit", 0, "at most so many entries; 0 is all")
	return cmd
}

// read asks the agent, or with --node reads the pins.
func (f *bpfFlags) read(ctx context.Context, a *app, name string, limit uint32) ([]mapEntry, error) {
	if f.node != "" {
		if err := a.needsRoot("pinned maps are read from the kernel"); err != nil {
			return nil, err
		}
		return f.readPins(ctx, name, limit)
	}
	c, conn, err := a.client()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return readMap(ctx, c, name, limit)
}

func (f *bpfFlags) readPins(ctx context.Context, name string, limit uint32) ([]mapEntry, error) {
	var entries []mapEntry
	for _, v := range agent.MapViews(f.bpffs, f.node) {
		if v.Name != name {
			continue
		}
		err := v.Get(ctx, limit, func(e *api.MapEntry) error {
			entries = append(entries, mapEntry{name, e.Key, e.Value})
			return nil
		})
		if err != nil {
			return nil, hint(err, "check --node and --bpffs")
		}
	}
	sortEntries(entries)
	return entries, nil
}

func sortEntries(entries []mapEntry) {
	slices.SortStableFunc(entries, func(a, b mapEntry) int { return strings.Compare(a.Key, b.Key) })
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
			sortEntries(entries)
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, mapEntry{name, e.Key, e.Value})
	}
}

// mapColumns are the fields of each view in the order of their weight. All are printed always, so that
// a script finds a column where it was; what the key says already is not among them.
func mapColumns(view string) []string {
	return map[string][]string{
		"flows": {
			"identity", "state", "translated", "service", "node", "reply", "packets", "bytes",
			"interface", "mtu", "stale", "young",
		},
		"ipcache":  {"identity", "node", "endpoint", "host", "otherNode"},
		"lb":       {"id", "backends"},
		"endpoint": {"identity", "ipv4", "ipv6", "mac", "mtu"},
		"nodes":    {"address", "tunnel", "mtu"},
		"metrics":  {"packets", "bytes"},
	}[view]
}

// fields makes the columns of a view. One that has no order here shows every field that some entry has.
func fields(view string, entries []mapEntry) (header []string, rows [][]string) {
	columns := mapColumns(view)
	values := make([]map[string]any, len(entries))
	names := map[string]any{}
	for i, e := range entries {
		if json.Unmarshal(e.Value, &values[i]) != nil {
			values[i] = map[string]any{"value": string(e.Value)}
		}
		for k := range values[i] {
			names[k] = nil
		}
	}
	if columns == nil {
		columns = sortedKeys(names)
	}
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
