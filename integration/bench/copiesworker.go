// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/sync/errgroup"

	apimirror "github.com/weft-net/weft/apiserver/mirror"
	"github.com/weft-net/weft/kvstore"
)

// copyTask is what the process of a mirror is told.
type copyTask struct {
	Etcd  string `json:"etcd"`  // URL of our store
	Dir   string `json:"dir"`   // of client files
	State string `json:"state"` // directory
}

// runCopies is the process that copies all clusters of a directory into a store. It ends with its input.
func runCopies(ctx context.Context, arg string, in io.Reader, out io.Writer) error {
	var task copyTask
	if err := json.Unmarshal([]byte(arg), &task); err != nil {
		return fmt.Errorf("copies: %w", err)
	}
	etcd := kvstore.DefaultConfig()
	etcd.Endpoints = []string{task.Etcd}
	client, err := kvstore.New(etcd, slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("copies: %w", err)
	}
	defer client.Close()
	cfg := apimirror.DefaultConfig()
	cfg.Name, cfg.Cluster, cfg.ClusterID = "bench-1", scope().Cluster, scope().ClusterID
	cfg.Dir, cfg.StateDir = task.Dir, task.State
	m, err := apimirror.New(cfg, client, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("copies: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.Run(ctx) })
	_, err = fmt.Fprintln(out, "{}")
	if err == nil {
		_, err = io.Copy(io.Discard, in)
	}
	cancel()
	if werr := g.Wait(); err == nil && !errors.Is(werr, context.Canceled) {
		err = werr
	}
	return err
}
