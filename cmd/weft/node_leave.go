// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

type leaveView struct {
	Node       string `json:"node"`
	Cluster    string `json:"cluster"`
	Endpoints  int    `json:"endpoints"`
	Addresses  int    `json:"addresses"`
	References int    `json:"references"` // to identities
	Done       bool   `json:"done"`
}

func nodeLeave(a *app) *cobra.Command {
	var etcd etcdFlags
	var yes bool
	cmd := &cobra.Command{
		Use: "leave NODE --yes", Short: "Take a node out of its cluster for good", Args: exactly("NODE"),
		Long: "Take everything that a node has out of the store of its cluster, as the node itself would: all agents believe it\n" +
			"at once, however many nodes leave, and nothing is held. Stop the node's agent first: as long as it may run (up to\n" +
			"45 s after its last word) the command waits. Prints what will go; with --yes it goes.\n" +
			"Needs the certificate of the node, or of admin or root. A node whose agent is started again is back.",
		Example: "  weft node leave a7 --etcd /etc/weft/etcd-admin.yaml        # what it would do\n" +
			"  weft node leave a7 --etcd /etc/weft/etcd-admin.yaml --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := etcd.open(cmd.Context(), a)
			if err != nil {
				return err
			}
			defer client.Close()
			r, err := kvstore.Leave(cmd.Context(), client, kvstore.LeaveConfig{Node: args[0], DryRun: !yes})
			if err != nil {
				return leaveHint(err, args[0])
			}
			v := leaveView{
				args[0], r.Cluster, r.Rows[schema.EndpointsPrefix], r.Rows[schema.IPsPrefix], r.Rows[schema.IdentityValuesPrefix], r.Done,
			}
			if err := printOne(a, v, func(w io.Writer) { printLeave(w, v) }); err != nil || yes {
				return err
			}
			return usage(cmd, errors.New("these rows will go: say --yes"))
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	etcd.add(a, cmd.Flags())
	return cmd
}

func printLeave(w io.Writer, v leaveView) {
	verb := "has"
	if v.Done {
		verb = "has left; it had"
	}
	fmt.Fprintf(w, "node %s of %s %s %d endpoints, %d addresses and %d references to identities\n",
		v.Node, v.Cluster, verb, v.Endpoints, v.Addresses, v.References)
}

func leaveHint(err error, node string) error {
	switch {
	case errors.Is(err, kvstore.ErrNodeAlive):
		return hint(err, "stop the agent of %s and try again", node)
	case errors.Is(err, kvstore.ErrNoNode):
		return hint(err, "weft node list (is the name right?); rows that are still held: weft store hold list")
	}
	return storeHint(err)
}
