// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/spf13/cobra"

func nodeCommand(a *app) *cobra.Command {
	return group("node", "The nodes of all connected clusters", tableCommand(a, "list", "List the nodes", "nodes", []column[row]{
		{"NODE", false, func(r row) string { return r.Key }},
		{"ID", false, func(r row) string { return r.field("clusterID") }},
		{"ADDRESSES", false, func(r row) string { return r.field("addresses") }},
		{"POD CIDRS", false, func(r row) string { return r.field("podCIDRs") }},
		{"SOURCE", true, func(r row) string { return r.Source }},
		{"AGE", false, func(r row) string { return age(r.Changed) }},
	}), nodeLeave(a))
}

func identityCommand(a *app) *cobra.Command {
	return group("identity", "The identities of all connected clusters", tableCommand(a, "list", "List the identities", "identities", []column[row]{
		{"IDENTITY", false, func(r row) string { return r.field("id") }},
		{"CLUSTER", false, func(r row) string { return r.field("cluster") }},
		{"LABELS", false, func(r row) string { return r.field("labels") }},
		{"SOURCE", true, func(r row) string { return r.Source }},
		{"AGE", false, func(r row) string { return age(r.Changed) }},
	}))
}

// tableCommand lists one table under columns of its own.
func tableCommand(a *app, use, about, table string, columns []column[row]) *cobra.Command {
	return &cobra.Command{
		Use: use + " [KEY]", Aliases: []string{"ls"}, Short: about, Args: atMost(1),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return a.live(cmd, tableKeys(table))
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, conn, err := a.client()
			if err != nil {
				return err
			}
			defer conn.Close()
			key := ""
			if len(args) == 1 {
				key = args[0]
			}
			rows, err := readTable(cmd.Context(), c, table, key)
			if err != nil {
				return err
			}
			return printList(a, rows, columns)
		},
	}
}
