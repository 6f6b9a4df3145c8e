// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func storeCommand(a *app) *cobra.Command {
	return group("store", "The cluster's etcd", storeInit(a))
}

func storeInit(_ *app) *cobra.Command {
	return &cobra.Command{
		Use: "init", Short: "Make epoch, users and roles; may be run again", Args: atMost(0),
		RunE: func(*cobra.Command, []string) error { return errors.New("store init: not in this build") },
	}
}
