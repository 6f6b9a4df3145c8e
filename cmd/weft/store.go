// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/kvstore"
)

func storeCommand(a *app) *cobra.Command {
	return group("store", "The cluster's etcd", storeInit(a), storeStatus(a), storeBackup(a), storeRestore(a), storeRelieve(a), storeHold(a), storeAdopt(a), storeReseed(a))
}

type stepView struct {
	Subject string `json:"subject"`
	Outcome string `json:"outcome"` // made, there, surplus
}

func storeInit(a *app) *cobra.Command {
	var etcd etcdFlags
	var cfg kvstore.InitConfig
	cmd := &cobra.Command{
		Use: "init --cluster NAME", Short: "Make epoch, users and roles; may be run again and adds what is missing", Args: atMost(0),
		Example: "  weft store init --etcd /etc/weft/etcd-admin.yaml --cluster a --nodes a1,a2",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.Cluster == "" {
				return usage(cmd, errors.New("--cluster is missing"))
			}
			client, err := etcd.open(cmd.Context(), a)
			if err != nil {
				return err
			}
			defer client.Close()
			report, err := kvstore.Init(cmd.Context(), client, cfg)
			if err != nil {
				return storeHint(err)
			}
			return printList(a, initSteps(report), []column[stepView]{
				{"OUTCOME", false, func(v stepView) string { return v.Outcome }},
				{"SUBJECT", false, func(v stepView) string { return v.Subject }},
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&cfg.Cluster, "cluster", a.getenv("WEFT_CLUSTER", ""), "name of the cluster whose store it is (WEFT_CLUSTER)")
	flags.StringSliceVar(&cfg.Nodes, "nodes", nil, "nodes that get a user")
	flags.StringSliceVar(&cfg.Remotes, "remotes", nil, "clusters that get a user of their own")
	flags.BoolVar(&cfg.NoAuth, "no-auth", false, "leave authentication as it is")
	etcd.add(a, flags)
	return cmd
}

func initSteps(r kvstore.InitReport) []stepView {
	var steps []stepView
	for _, s := range r.Steps {
		v := stepView{s.Subject, "there"}
		if s.Done {
			v.Outcome = "made"
		}
		steps = append(steps, v)
	}
	for _, s := range r.Surplus {
		steps = append(steps, stepView{s, "surplus"})
	}
	return steps
}
