// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/weft-net/weft/integration/lab"
)

// labCommands is the one place where the lab's commands join the command line.
func labCommands(_ *app) []*cobra.Command {
	return []*cobra.Command{lab.Command()}
}
