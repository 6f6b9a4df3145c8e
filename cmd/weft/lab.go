// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/spf13/cobra"

// labCommands is the one place where the lab's commands join the command line.
func labCommands(_ *app) []*cobra.Command {
	return nil
}
