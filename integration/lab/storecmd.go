// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
)

// store is `weft lab store`: what can happen to a cluster's store besides being killed.
func (c *command) store() *cobra.Command {
	root := &cobra.Command{
		Use: "store", Short: "Wipe a cluster's store, roll it back, or restore it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	newID, file := false, ""
	sub := func(use, short string, do func(ctx context.Context, dir, cluster string) error) *cobra.Command {
		return &cobra.Command{
			Use: use + " CLUSTER...", Short: short, Args: cobra.MinimumNArgs(1),
			ValidArgsFunction: c.complete(func(l *Lab) (names []string) {
				for _, cl := range l.Clusters {
					names = append(names, cl.Name)
				}
				return names
			}),
			RunE: func(cmd *cobra.Command, args []string) error {
				for _, cluster := range args {
					if err := do(cmd.Context(), c.options.Dir, cluster); err != nil {
						return err
					}
				}
				return nil
			},
		}
	}
	wipe := sub("wipe", "Kill the store and start it with no data", func(ctx context.Context, dir, cluster string) error {
		return WipeStore(ctx, dir, cluster, newID)
	})
	wipe.Flags().BoolVar(&newID, "new-id", false, "it gets another cluster id than it had")
	restore := sub("restore", "Kill the store and start it with the data of a backup", func(ctx context.Context, dir, cluster string) error {
		if file == "" {
			return &UsageError{errors.New("--from is missing: name a file that 'weft store backup' wrote")}
		}
		return RestoreStore(ctx, dir, cluster, file)
	})
	restore.Flags().StringVar(&file, "from", "", "the backup")
	root.AddCommand(
		wipe, restore,
		sub("save", "Keep a copy of the store's data", SaveStore),
		sub("rollback", "Put the copy of the store's data back", RollBackStore),
	)
	return root
}
