// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/apiserver/mirror"
)

func meshForget(a *app) *cobra.Command {
	var etcd etcdFlags
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "forget NAME", Short: "Delete what is known of a cluster that is gone for good", Args: exactly("NAME"),
		Long: "Delete the copy of another cluster from our store, and with it what the nodes know of it: the cluster is gone\n" +
			"for good. One that is connected is refused. While its client file stands, it is mirrored anew if it comes back;\n" +
			"remove the file to leave it for good.",
		Example: "  weft mesh forget west",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := etcd.open(cmd.Context(), a)
			if err != nil {
				return err
			}
			defer client.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), wait)
			defer cancel()
			by := "somebody"
			if u, err := user.Current(); err == nil {
				by = u.Username
			}
			err = mirror.Forget(ctx, client, args[0], by)
			switch {
			case errors.Is(err, mirror.ErrConnected):
				return hint(err, "remove its client file from the API servers' clustermesh-dir; its copy goes after 3 minutes")
			case errors.Is(err, mirror.ErrNoCopy):
				return hint(err, "weft mesh status")
			case errors.Is(err, context.DeadlineExceeded):
				return hint(err, "check that an API server with clustermesh-dir runs; the next one that does will carry it out")
			case err != nil:
				return storeHint(err)
			}
			return printOne(a, map[string]any{"schema": schemaName, "forgotten": args[0]}, func(w io.Writer) {
				fmt.Fprintf(w, "cluster %s forgotten\n", args[0])
			})
		},
	}
	flags := cmd.Flags()
	etcd.add(a, flags)
	flags.DurationVar(&wait, "wait", 30*time.Second, "how long to wait until it is done")
	return cmd
}
