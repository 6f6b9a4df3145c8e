// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/apiserver"
	"github.com/weft-net/weft/internal/metrics"
	"github.com/weft-net/weft/kvstore"
)

func apiserverCommand(a *app) *cobra.Command {
	var file, level, format string
	cmd := &cobra.Command{
		Use: "apiserver", Short: "Serve the cluster's store to the mesh, read-only",
		Long: "Serve the cluster's store to the mesh: the etcd v3 API, read-only, from memory, over TLS with certificates\n" +
			"on both sides. A certificate's name says what it may read. Several may run; each costs the etcd one watch.\n" +
			"While the etcd is away they serve what it had.",
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if file == "" {
				return usage(cmd, errors.New("give the file of settings with --config FILE"))
			}
			cfg, err := apiserver.ReadConfig(file)
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
			registry := metrics.NewRegistry()
			s, err := apiserver.New(cfg, client, registry, log.With("part", "apiserver"))
			if err != nil {
				return err
			}
			g, ctx := errgroup.WithContext(cmd.Context())
			g.Go(func() error { return s.Run(ctx) })
			g.Go(func() error { return metrics.Serve(ctx, cfg.Metrics, registry) })
			if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("apiserver: %w", err)
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
