// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/kvstore/care"
)

func storeRelieve(a *app) *cobra.Command {
	var etcd etcdFlags
	var yes bool
	cmd := &cobra.Command{
		Use: "relieve --yes", Short: "Take a store that is full (NOSPACE) back into service", Args: atMost(0),
		Long: "Take a store that is full back into service: compact its history, defragment each member, one after the other\n" +
			"and the leader last, and disarm the alarm. No row is lost; watches that are behind list anew. A member answers\n" +
			"nothing while it is defragmented, about a second per 100 MiB. Needs the certificate of admin or root.",
		Example: "  weft store relieve --yes --etcd /etc/weft/etcd-admin.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				return usage(cmd, errors.New("each member in turn will not answer for a while: say --yes"))
			}
			client, err := etcd.open(cmd.Context(), a)
			if err != nil {
				return err
			}
			defer client.Close()
			err = care.Relieve(cmd.Context(), client, func(step string) { fmt.Fprintln(a.out, step) })
			if errors.Is(err, care.ErrStillFull) {
				return hint(err, "weft store status (which rows are many?)")
			}
			if err != nil {
				return storeHint(err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	etcd.add(a, cmd.Flags())
	return cmd
}
