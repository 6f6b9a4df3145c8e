// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/weft-net/weft/agent"
)

func agentCommand(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "agent", Short: "Run the agent of this node",
		Long: "Run the agent of this node. Each setting is a flag, a variable (--pod-cidrs is WEFT_POD_CIDRS)\n" +
			"and a key of the YAML file of the same name; flags win over variables, variables over the file.",
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := agentConfig(a, cmd.Flags(), file)
			if err != nil {
				return err
			}
			return runAgent(cmd.Context(), a, cfg)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&file, "config", a.getenv("WEFT_CONFIG", ""), "YAML file of settings (WEFT_CONFIG)")
	defaults := agent.DefaultConfig()
	for _, s := range defaults.Settings() {
		if s.Key == "socket" {
			continue // the global flag
		}
		flags.Var(s.Value, s.Key, s.Help)
	}
	for key, words := range map[string][]string{
		"mode":   {agent.ModeVXLAN, agent.ModeNative},
		"family": {agent.Family4, agent.Family6, agent.FamilyDual},
		// As Validate has them.
		"max-clusters": {"255", "511"}, "log-level": {"debug", "info", "warn", "error"}, "log-format": {"text", "json"},
	} {
		must(cmd.RegisterFlagCompletionFunc(key, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)))
	}
	return cmd
}

// agentConfig reads file and environment and puts the flags that were given on top.
func agentConfig(a *app, flags *pflag.FlagSet, file string) (agent.Config, error) {
	cfg, wrong := agent.ReadConfig(file, a.env)
	var setting *agent.ConfigError
	if wrong != nil && !errors.As(wrong, &setting) {
		return agent.Config{}, wrong // no file, or no mapping in it
	}
	for _, s := range cfg.Settings() {
		f := flags.Lookup(s.Key)
		if f == nil || !f.Changed {
			continue
		}
		if err := s.Value.Set(f.Value.String()); err != nil {
			return agent.Config{}, fmt.Errorf("flag --%s: %w", s.Key, err)
		}
	}
	if err := errors.Join(wrong, agent.Besides(wrong, cfg.Validate())); err != nil {
		return agent.Config{}, err
	}
	return cfg, nil
}
