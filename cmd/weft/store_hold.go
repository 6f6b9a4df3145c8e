// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/agent/api"
)

func storeHold(a *app) *cobra.Command {
	var limit uint32
	var cluster string
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "Show the rows in force that the store does not have", Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, conn, err := a.client()
			if err != nil {
				return err
			}
			defer conn.Close()
			h, err := c.HoldList(cmd.Context(), &api.HoldListRequest{Limit: limit, Cluster: cluster})
			if err != nil {
				return err
			}
			return printOne(a, h, func(w io.Writer) { printHold(w, h) })
		},
	}
	list.Flags().Uint32Var(&limit, "limit", 100, "how many rows to name")
	ofCluster(list, &cluster)
	return group("hold", "What is kept in force after the store was lost", list)
}

// ofCluster adds the flag that says whose store is meant.
func ofCluster(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "cluster", "", "another cluster, whose rows this node holds; ours if not given")
}

// printHold says what is held, for people.
func printHold(w io.Writer, h *api.HoldListResponse) {
	if h.Settling > 0 {
		fmt.Fprintf(w, "%d rows of %s settle: the leases of their owners have just ended\n", h.Settling, h.Cluster)
	}
	if !h.Holding {
		fmt.Fprintf(w, "nothing is held; the store of %s is %s\n", h.Cluster, h.Lineage)
		return
	}
	fmt.Fprintf(w, "%d rows of %s are in force that its store does not have, since %s: %s\n",
		h.Rows, h.Cluster, time.Unix(0, h.Since).Format(time.DateTime), h.Reason)
	for _, k := range h.Kinds {
		fmt.Fprintf(w, "  %-12s %d\n", k.Resource, k.Rows)
	}
	for _, o := range h.Owners {
		said := "silent"
		if o.Confirmed {
			said = "has spoken"
		}
		fmt.Fprintf(w, "  of %-24s %d rows, %s\n", o.Name, o.Rows, said)
	}
	for _, r := range h.Held {
		mark := "-"
		if r.Settling {
			mark = "settles"
		}
		fmt.Fprintf(w, "  %s %s\n", mark, r.Key)
	}
	if more := int(h.Rows+h.Settling) - len(h.Held); more > 0 {
		fmt.Fprintf(w, "  and %d more\n", more)
	}
}

// decision is a command that prints the difference and decides it with --yes.
func decision(a *app, use, short, long, sure string, do func(context.Context, api.AgentClient, string) (any, string, error)) *cobra.Command {
	var yes bool
	var cluster string
	cmd := &cobra.Command{
		Use: use + " --yes", Short: short, Long: long, Args: atMost(0),
		Example: "  weft store " + use + "        # what it would do\n  weft store " + use + " --yes",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, conn, err := a.client()
			if err != nil {
				return err
			}
			defer conn.Close()
			h, err := c.HoldList(cmd.Context(), &api.HoldListRequest{Limit: 100, Cluster: cluster})
			if err != nil {
				return err
			}
			if !yes {
				if err := printOne(a, h, func(w io.Writer) { printHold(w, h) }); err != nil || !h.Holding {
					return err
				}
				return usage(cmd, errors.New(sure))
			}
			if a.format == formatTable || a.format == formatWide {
				printHold(a.out, h)
			}
			if !h.Holding {
				return printOne(a, h, func(io.Writer) {})
			}
			v, text, err := do(cmd.Context(), c, cluster)
			if err != nil {
				return err
			}
			return printOne(a, map[string]any{"difference": h, "done": v}, func(w io.Writer) { fmt.Fprintln(w, text) })
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	ofCluster(cmd, &cluster)
	return cmd
}

func storeAdopt(a *app) *cobra.Command {
	return decision(a, "adopt", "Decide that what is in the store is the truth: held rows go",
		"Decide, for every agent of the cluster, that what is in its store is the truth now. Rows that are held because the\n"+
			"store does not have them are given up at once. Asks the agent of this node; prints the difference first.\n"+
			"With --cluster it is decided for this node alone what is held of another cluster.",
		"these rows will be given up: say --yes",
		func(ctx context.Context, c api.AgentClient, cluster string) (any, string, error) {
			by := "somebody"
			if u, err := user.Current(); err == nil {
				by = u.Username
			}
			r, err := c.HoldAdopt(ctx, &api.HoldAdoptRequest{By: strings.TrimSpace(by), Cluster: cluster})
			if err != nil {
				return nil, "", err
			}
			where := "on every node"
			switch {
			case cluster != "":
				where = "on this node alone: for all, decide in " + cluster
			case !r.Everywhere:
				where = "on this node alone: the store does not take the decision"
			}
			return r, fmt.Sprintf("%d rows given up %s", r.Rows, where), nil
		})
}

func storeReseed(a *app) *cobra.Command {
	return decision(a, "reseed", "Decide that what is held is the truth: it is written to the store",
		"Decide that what this node holds is the truth: rows that the store does not have are written to it, never over one\n"+
			"that it has, under a lease of 20 minutes; their owners take them over. Prints the difference first. Only our own\n"+
			"store is written: what another cluster's lacks is written back there.",
		"these rows will be written to the store: say --yes",
		func(ctx context.Context, c api.AgentClient, cluster string) (any, string, error) {
			r, err := c.HoldReseed(ctx, &api.HoldReseedRequest{Cluster: cluster})
			if err != nil {
				return nil, "", err
			}
			return r, fmt.Sprintf("%d rows written", r.Written), nil
		})
}
