// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"strings"

	"github.com/weft-net/weft/agent"
)

func runAgent(ctx context.Context, a *app, cfg agent.Config) error {
	node, err := agent.New(cfg, newLogger(a, cfg.LogLevel, cfg.LogFormat))
	if err != nil {
		return err
	}
	if err := a.needsRoot("an agent loads BPF programs and makes devices"); err != nil {
		return err
	}
	a.endless = true
	return node.Run(ctx)
}

// newLogger writes to standard error; level and format are those that Validate allows.
func newLogger(a *app, level, format string) *slog.Logger {
	options := &slog.HandlerOptions{}
	var l slog.Level
	if l.UnmarshalText([]byte(strings.ToUpper(level))) == nil {
		options.Level = l
	}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(a.err, options))
	}
	return slog.New(slog.NewTextHandler(a.err, options))
}
