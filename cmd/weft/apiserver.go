// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/apiserver"
	"github.com/weft-net/weft/apiserver/join"
	"github.com/weft-net/weft/apiserver/mirror"
	"github.com/weft-net/weft/kvstore"
)

func apiserverCommand(a *app) *cobra.Command {
	return roleCommand(a, &cobra.Command{
		Use: "apiserver", Short: "Serve the cluster's store to the mesh, read-only",
		Long: "Serve the cluster's store to the mesh: the etcd v3 API, read-only, from memory, over TLS with certificates\n" +
			"on both sides. A certificate's name says what it may read. Several may run; each costs the etcd one watch.\n" +
			"While the etcd is away they serve what it had. With clustermesh-dir one of them copies the other clusters\n" +
			"into the store, for the agents.",
	}, buildAPIServer)
}

func buildAPIServer(r *role, file string) error {
	cfg, err := apiserver.ReadConfig(file)
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
	s, err := apiserver.New(cfg, client, r.registry, r.log.With("part", "apiserver"))
	if err != nil {
		return err
	}
	j, err := join.New(join.Config{Settings: join.SettingsOf(cfg), Listen: cfg.Join.Listen, Ban: s.Ban}, client, r.registry, r.log.With("part", "join"))
	if err != nil {
		return err
	}
	s.RenewBy(j.Renew)
	r.metrics, r.parts = cfg.Metrics, []func(context.Context) error{s.Run, j.Run}
	if cfg.MeshDir == "" {
		return nil
	}
	m, err := mirror.New(mirrorConfig(cfg), client, r.registry, r.log.With("part", "mirror"))
	if err != nil {
		return err
	}
	r.parts = append(r.parts, m.Run)
	return nil
}

// mirrorConfig is what an API server's settings say about the mirror.
func mirrorConfig(cfg apiserver.Config) mirror.Config {
	m := mirror.DefaultConfig()
	m.Name, m.Cluster, m.ClusterID, m.MaxClusters = cfg.Name, cfg.Cluster, cfg.ClusterID, cfg.MaxClusters
	m.Dir, m.StateDir = cfg.MeshDir, cfg.StateDir
	return m
}
