// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func operatorCommand(_ *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "operator", Short: "Run the once-per-cluster work", Args: atMost(0),
		RunE: func(*cobra.Command, []string) error { return errors.New("operator: not in this build") },
	}
	cmd.Flags().StringVar(&file, "config", "", "YAML file of settings")
	return cmd
}
