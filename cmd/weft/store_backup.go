// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/kvstore/backup"
)

func storeBackup(a *app) *cobra.Command {
	var etcd etcdFlags
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Copy the cluster's etcd into a new file, verified", Args: exactly("FILE"),
		Long: "Copy the cluster's etcd into a new file that only its owner may read, verify it, and note it in the store.\n" +
			"A file that is there is never replaced. Needs the certificate of admin or root.",
		Example: "  weft store backup /var/backups/weft-1.db --etcd /etc/weft/etcd-admin.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := etcd.open(cmd.Context(), a)
			if err != nil {
				return err
			}
			defer client.Close()
			s, err := backup.Save(cmd.Context(), client, args[0])
			if errors.Is(err, fs.ErrExist) {
				return hint(err, "give a file that does not exist: an old backup is never replaced")
			}
			if err != nil {
				return storeHint(err)
			}
			return printOne(a, struct {
				Schema string `json:"schema"`
				backup.Saved
			}{schemaName, s}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: %s, %d keys, revision %d, epoch %s, hash verified\n", s.File, bytesText(s.Size), s.Keys, s.Revision, orDash(s.Epoch))
				if s.Unrecorded != "" {
					fmt.Fprintf(w, "! the file is good, but the store does not know of it: %s\n", s.Unrecorded)
				}
			})
		},
	}
	etcd.add(a, cmd.Flags())
	return cmd
}

func storeRestore(a *app) *cobra.Command {
	var cfg backup.RestoreConfig
	cmd := &cobra.Command{
		Use: "restore FILE --data-dir DIR", Short: "Make a member's data directory from a backup; talks to no etcd", Args: exactly("FILE"),
		Long: "Make the data directory of an etcd member from a backup, without a running etcd. The restored store has a new\n" +
			"epoch and revisions that no client has seen, so that nodes hold what they know until its owners have written it\n" +
			"again. With several members run it once for each, with the same FILE and --initial-cluster-token.",
		Example: "  weft store restore weft-1.db --data-dir /var/lib/etcd-new --name m1 --peer-urls https://10.0.0.1:2380",
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg.File = args[0]
			if cfg.Dir == "" {
				return usage(cmd, errors.New("--data-dir is missing"))
			}
			r, err := backup.Restore(cfg)
			if err != nil {
				return err
			}
			return printOne(a, struct {
				Schema string `json:"schema"`
				backup.Restored
			}{schemaName, r}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: %d keys of revision %d, now revision %d, epoch %s\n", r.Dir, r.Keys, r.From, r.Revision, r.Epoch)
				fmt.Fprintf(w, "start this member's etcd with\n  %s\nbeside its other flags, as the user that owns the directory\n", strings.Join(r.Flags, " \\\n  "))
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&cfg.Dir, "data-dir", "", "directory to make; must not exist, or be empty")
	flags.StringVar(&cfg.Name, "name", "default", "name of the member")
	flags.StringVar(&cfg.PeerURL, "peer-urls", "http://localhost:2380", "its peer URLs, with commas between")
	flags.StringVar(&cfg.InitialCluster, "initial-cluster", "", "all members, name=peer URL with commas between (default: this one)")
	flags.StringVar(&cfg.Token, "initial-cluster-token", "", "new for each restore, the same for all members of one (default with one member: random)")
	flags.Uint64Var(&cfg.Bump, "bump-revision", backup.DefaultBump, "by how much revisions grow: more than was written since the backup")
	return cmd
}
