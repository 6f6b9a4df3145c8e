// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/internal/metrics"
	"github.com/weft-net/weft/kvstore"
)

// role is the process of a command that works on a store, by one file of settings, until it is
// interrupted. The agent is none: its settings are flags too, and it opens its store itself.
type role struct {
	log      *slog.Logger
	registry *prometheus.Registry

	metrics string                        // address:port that registry is served at; empty: off
	parts   []func(context.Context) error // run side by side; the first that fails ends the others
	clients []*kvstore.Client             // closed after the parts, the last first
}

// roleCommand lets a command run a role. build reads the file of settings and sets what of the role
// depends on it.
func roleCommand(a *app, cmd *cobra.Command, build func(r *role, file string) error) *cobra.Command {
	var file, level, format string
	cmd.Args = atMost(0)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if file == "" {
			return usage(cmd, errors.New("give the file of settings with --config FILE"))
		}
		r := &role{log: newLogger(a, level, format), registry: metrics.NewRegistry()}
		defer func() { err = errors.Join(err, r.close()) }()
		if err := build(r, file); err != nil {
			return err
		}
		if err := r.run(cmd.Context()); err != nil {
			return fmt.Errorf("%s: %w", cmd.Name(), err)
		}
		return nil
	}
	flags := cmd.Flags()
	flags.StringVar(&file, "config", a.getenv("WEFT_CONFIG", ""), "YAML file of settings (WEFT_CONFIG)")
	flags.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&format, "log-format", "text", "text or json")
	return cmd
}

// client opens a store until the role ends.
func (r *role) client(etcd kvstore.Config) (*kvstore.Client, error) {
	c, err := kvstore.New(etcd, r.log.With("part", "etcd"))
	if err != nil {
		return nil, err
	}
	r.clients = append(r.clients, c)
	return c, nil
}

// run returns nil when ctx ended it.
func (r *role) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, part := range r.parts {
		g.Go(func() error { return part(ctx) })
	}
	g.Go(func() error { return metrics.Serve(ctx, r.metrics, r.registry) })
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (r *role) close() error {
	var errs []error
	for i := len(r.clients) - 1; i >= 0; i-- {
		errs = append(errs, r.clients[i].Close())
	}
	return errors.Join(errs...)
}
