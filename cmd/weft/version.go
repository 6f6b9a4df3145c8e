// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/agent"
)

func versionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: atMost(0),
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"version": agent.Version(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
			return printOne(a, v, func(w io.Writer) {
				fmt.Fprintf(w, "weft %s (%s, %s)\n", v["version"], v["go"], v["platform"])
			})
		},
	}
}
