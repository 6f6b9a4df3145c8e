// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/care"
	"github.com/weft-net/weft/operator"
)

// storeLook is how often an operator looks at the store for its metrics.
const storeLook = time.Minute

func operatorCommand(a *app) *cobra.Command {
	return roleCommand(a, &cobra.Command{
		Use: "operator", Short: "Run the once-per-cluster work",
		Long: "Run the once-per-cluster work: heartbeat, cluster-config, publishing of global services, collection of\n" +
			"unused identities, compaction, putting back what a lost store had. Several may run; one leads. Packets\n" +
			"do not need it.",
	}, buildOperator)
}

func buildOperator(r *role, file string) error {
	cfg, err := operator.ReadConfig(file)
	if err != nil {
		return err
	}
	etcd, err := kvstore.ReadConfigFile(cfg.Etcd)
	if err != nil {
		return err
	}
	client, err := r.client(etcd)
	if err != nil {
		return err
	}
	admin, err := adminClient(r, cfg)
	if err != nil {
		return err
	}
	o, err := operator.New(cfg, client, admin, r.registry, r.log.With("part", "operator"))
	if err != nil {
		return err
	}
	look, err := care.NewExporter(client, storeLook, r.registry)
	if err != nil {
		return err
	}
	r.metrics, r.parts = cfg.Metrics, []func(context.Context) error{o.Run, look.Run}
	return nil
}

// adminClient is a client of the store with the administrator's rights, nil if the settings name none.
func adminClient(r *role, cfg operator.Config) (*kvstore.Client, error) {
	if cfg.EtcdAdmin == "" {
		return nil, nil
	}
	etcd, err := kvstore.ReadConfigFile(cfg.EtcdAdmin)
	if err != nil {
		return nil, fmt.Errorf("etcd-admin: %w", err)
	}
	return r.client(etcd)
}
