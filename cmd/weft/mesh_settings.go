// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/apiserver"
	"github.com/weft-net/weft/apiserver/join"
	"github.com/weft-net/weft/kvstore"
)

// meshFlags are those of commands that change who is in the mesh. They run where an API server does:
// its settings say where everything is.
type meshFlags struct {
	config string
	etcd   string
}

func (f *meshFlags) add(a *app, cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.config, "config", a.getenv("WEFT_CONFIG", ""), "YAML file of the API server's settings (WEFT_CONFIG)")
	cmd.Flags().StringVar(&f.etcd, "etcd", a.getenv("WEFT_ETCD", ""), "etcd client file; default: the API server's (WEFT_ETCD)")
}

// read reads the settings.
func (f *meshFlags) read(cmd *cobra.Command) (apiserver.Config, error) {
	if f.config == "" {
		return apiserver.Config{}, usage(cmd, errors.New("give the API server's file of settings with --config FILE"))
	}
	return apiserver.ReadConfig(f.config)
}

// open reads the settings and returns a client of the cluster's store. The caller closes it.
func (f *meshFlags) open(cmd *cobra.Command) (apiserver.Config, *kvstore.Client, error) {
	cfg, err := f.read(cmd)
	if err != nil {
		return cfg, nil, err
	}
	file := cfg.Etcd
	if f.etcd != "" {
		file = f.etcd
	}
	etcd, err := kvstore.ReadConfigFile(file)
	if err != nil {
		return cfg, nil, err
	}
	etcd.RequestTimeout = storeTime
	client, err := kvstore.New(etcd, slog.New(slog.DiscardHandler))
	return cfg, client, err
}

// meshHint says what to do about an error of joining.
func meshHint(err error) error {
	var r *join.Refusal
	if errors.As(err, &r) {
		if r.Todo == "" {
			return err
		}
		return hint(err, "%s", r.Todo)
	}
	if errors.Is(err, join.ErrNoPeer) {
		return hint(err, "weft mesh peers")
	}
	return storeHint(err)
}
