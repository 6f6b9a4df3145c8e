// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/agent/api"
)

// completionTime bounds how long a shell waits for live names.
const completionTime = 2 * time.Second

// live asks the agent for names; an agent that does not answer has none.
func (a *app) live(cmd *cobra.Command, ask func(context.Context, api.AgentClient) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	parent := cmd.Context()
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancel := context.WithTimeout(parent, completionTime)
	defer cancel()
	c, conn, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer conn.Close()
	names, err := ask(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeTable(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return a.live(cmd, func(ctx context.Context, c api.AgentClient) ([]string, error) {
			reply, err := c.TableList(ctx, &api.TableListRequest{})
			if err != nil {
				return nil, err
			}
			var names []string
			for _, t := range reply.Tables {
				names = append(names, t.Name+"\t"+t.About)
			}
			return names, nil
		})
	case 1:
		return a.live(cmd, tableKeys(args[0]))
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// tableKeys lists the keys of a table.
func tableKeys(table string) func(context.Context, api.AgentClient) ([]string, error) {
	return func(ctx context.Context, c api.AgentClient) ([]string, error) {
		rows, err := readTable(ctx, c, table, "")
		var keys []string
		for _, r := range rows {
			keys = append(keys, r.Key)
		}
		return keys, err
	}
}

func (a *app) completeEndpoint(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.live(cmd, func(ctx context.Context, c api.AgentClient) ([]string, error) {
		reply, err := c.EndpointList(ctx, &api.EndpointListRequest{})
		if err != nil {
			return nil, err
		}
		var names []string
		for _, e := range reply.Endpoints {
			names = append(names, e.Namespace+"/"+e.Name)
		}
		return names, nil
	})
}
