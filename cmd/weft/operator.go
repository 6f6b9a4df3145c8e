// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/internal/metrics"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/care"
	"github.com/weft-net/weft/operator"
)

// storeLook is how often an operator looks at the store for its metrics.
const storeLook = time.Minute

func operatorCommand(a *app) *cobra.Command {
	var file, level, format string
	cmd := &cobra.Command{
		Use: "operator", Short: "Run the once-per-cluster work",
		Long: "Run the once-per-cluster work: heartbeat, cluster-config, publishing of global services, collection of\n" +
			"unused identities, compaction, putting back what a lost store had. Several may run; one leads. Packets\n" +
			"do not need it.",
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if file == "" {
				return usage(cmd, errors.New("give the file of settings with --config FILE"))
			}
			cfg, err := operator.ReadConfig(file)
			if err != nil {
				return err
			}
			etcd, err := kvstore.ReadConfigFile(cfg.Etcd)
			if err != nil {
				return err
			}
			log := newLogger(a, level, format)
			client, err := kvstore.New(etcd, log.With("part", "etcd"))
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, client.Close()) }()
			admin, err := adminClient(cfg, log.With("part", "etcd"))
			if err != nil {
				return err
			}
			if admin != nil {
				defer func() { err = errors.Join(err, admin.Close()) }()
			}
			registry := metrics.NewRegistry()
			o, err := operator.New(cfg, client, admin, registry, log.With("part", "operator"))
			if err != nil {
				return err
			}
			look, err := care.NewExporter(client, storeLook, registry)
			if err != nil {
				return err
			}
			g, ctx := errgroup.WithContext(cmd.Context())
			g.Go(func() error { return o.Run(ctx) })
			g.Go(func() error { return look.Run(ctx) })
			g.Go(func() error { return metrics.Serve(ctx, cfg.Metrics, registry) })
			if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("operator: %w", err)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&file, "config", a.getenv("WEFT_CONFIG", ""), "YAML file of settings (WEFT_CONFIG)")
	flags.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&format, "log-format", "text", "text or json")
	return cmd
}

// adminClient is a client of the store with the administrator's rights, nil if the settings name none.
func adminClient(cfg operator.Config, log *slog.Logger) (*kvstore.Client, error) {
	if cfg.EtcdAdmin == "" {
		return nil, nil
	}
	etcd, err := kvstore.ReadConfigFile(cfg.EtcdAdmin)
	if err != nil {
		return nil, fmt.Errorf("etcd-admin: %w", err)
	}
	return kvstore.New(etcd, log)
}
