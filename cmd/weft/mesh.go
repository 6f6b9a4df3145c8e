// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/agent/api"
)

func meshCommand(a *app) *cobra.Command {
	return group("mesh", "The connected clusters", meshStatus(a), meshToken(a), meshJoin(a), meshPeers(a), meshApprove(a), meshLeave(a), meshForget(a), meshTroubleshoot(a))
}

func meshStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Judge the connections to the other clusters; the exit code is their health", Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, conn, err := a.client()
			if err != nil {
				return err
			}
			defer conn.Close()
			s, err := c.Status(cmd.Context(), &api.StatusRequest{})
			if err != nil {
				return err
			}
			healthy := true
			views := []remoteView{}
			for _, r := range s.Remotes {
				healthy = healthy && r.Health != api.Health_HEALTH_FAILED
				views = append(views, remoteOf(r))
			}
			v := map[string]any{"schema": schemaName, "cluster": s.Cluster, "clusterID": s.ClusterId, "healthy": healthy, "remotes": views}
			if err := printOne(a, v, func(w io.Writer) { printMesh(a, w, s) }); err != nil {
				return err
			}
			if !healthy {
				return errUnhealthy
			}
			return nil
		},
	}
}

func printMesh(a *app, w io.Writer, s *api.StatusResponse) {
	fmt.Fprintf(w, "cluster %s (%d) as seen by node %s\n", s.Cluster, s.ClusterId, s.Node)
	width := 0
	for _, r := range s.Remotes {
		width = max(width, len(r.Name))
	}
	for _, r := range s.Remotes {
		printRemote(w, a.colored(w), width, r.Name, r)
	}
	if len(s.Remotes) == 0 {
		printLine(w, mark(api.Health_HEALTH_OFF, a.colored(w)), 0, "no other clusters", "",
			"", "weft mesh token create there and weft mesh join here; or put an etcd client file named after the cluster into clustermesh-dir")
	}
}
