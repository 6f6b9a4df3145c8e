// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/apiserver/probe"
)

type walkView struct {
	Cluster string       `json:"cluster"`
	OK      bool         `json:"ok"`
	Steps   []probe.Step `json:"steps"`
}

func meshTroubleshoot(a *app) *cobra.Command {
	var flags meshFlags
	var dir string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "troubleshoot [CLUSTER]", Short: "Walk the way to other clusters step by step; the exit code is whether all arrive",
		Long: "Walk the way to other clusters as the mirror or an agent goes it: file, DNS, TCP, TLS, authorisation,\n" +
			"heartbeat, cluster-config, sync. The first step that fails is named with its reason and what to do. Nothing\n" +
			"is changed. It goes by the client files of --dir, or of clustermesh-dir in the API server's settings.",
		Example: "  weft mesh troubleshoot --dir /var/lib/weft/mesh west",
		Args:    atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if dir == "" {
				cfg, err := flags.read(cmd)
				if err != nil {
					return err
				}
				if dir = cfg.MeshDir; dir == "" {
					return hint(errors.New("clustermesh-dir is not set: there are no other clusters"), "name a directory of client files with --dir")
				}
			}
			names := args
			if len(names) == 0 {
				var err error
				if names, err = probe.Remotes(dir); err != nil {
					return err
				}
			}
			if len(names) == 0 {
				return hint(fmt.Errorf("%s has no client file: there are no other clusters", dir), "weft mesh join, or weft mesh token create")
			}
			views, ok := []walkView{}, true
			for _, name := range names {
				v := walkView{name, true, probe.Walk(cmd.Context(), probe.Config{Cluster: name, File: filepath.Join(dir, name), Timeout: timeout})}
				for _, s := range v.Steps {
					v.OK = v.OK && s.OK
				}
				views, ok = append(views, v), ok && v.OK
			}
			if err := printOne(a, map[string]any{"schema": schemaName, "items": views}, func(w io.Writer) { printWalks(a, w, views) }); err != nil {
				return err
			}
			if !ok {
				return errUnhealthy
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "directory of etcd client files")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "of each step")
	flags.add(a, cmd)
	return cmd
}

func printWalks(a *app, w io.Writer, views []walkView) {
	color := a.colored(w)
	for _, v := range views {
		fmt.Fprintf(w, "cluster %s\n", v.Cluster)
		for _, s := range v.Steps {
			health := api.Health_HEALTH_OFF
			switch {
			case s.OK:
				health = api.Health_HEALTH_OK
			case s.Tried:
				health = api.Health_HEALTH_FAILED
			}
			found := s.Found
			if !s.Tried {
				found = "not tried"
			}
			printLine(w, mark(health, color), len("cluster-config"), s.Name, found, "", s.Todo)
		}
	}
}
