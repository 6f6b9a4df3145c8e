// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/apiserver/trust"
)

func certServer(a *app) *cobra.Command {
	var f issueFlags
	var s trust.Server
	cmd := &cobra.Command{
		Use: "server NAME --host HOST,...", Short: "Sign the certificate of an API server, or with --etcd of a member of the etcd", Args: exactly("NAME"),
		Long: "Sign the certificate of a server of this cluster. An API server also gets the name under which other clusters\n" +
			"know it, CLUSTER.mesh.cilium.io, and the loopback. With --etcd it is for a member of the etcd, which is a client of\n" +
			"the other members too.",
		Example: "  weft cert server east-1 --host 192.0.2.10\n  weft cert server etcd-1 --etcd --host 192.0.2.5,etcd-1.east.example",
		RunE: func(_ *cobra.Command, args []string) error {
			s.Name = args[0]
			if !s.Etcd {
				d, err := f.open()
				if err != nil {
					return err
				}
				if s.Cluster, err = d.Cluster(); err != nil {
					return err
				}
				s.Hosts = append(s.Hosts, "localhost", "127.0.0.1", "::1")
			}
			return f.issue(a, trust.RoleCluster, s.Name, func(by *trust.Authority, pub crypto.PublicKey) (trust.Chain, error) {
				return by.SignServer(pub, s, orLife(f.life, trust.ServerLife))
			})
		},
	}
	f.add(cmd.Flags(), "30 days")
	cmd.Flags().StringSliceVar(&s.Hosts, "host", nil, "DNS names and addresses under which clients dial it")
	cmd.Flags().BoolVar(&s.Etcd, "etcd", false, "for a member of the etcd")
	return cmd
}

func certClient(a *app) *cobra.Command {
	var f issueFlags
	var direct bool
	cmd := &cobra.Command{
		Use: "client USER", Short: "Sign the certificate of a user of the store, or of another cluster", Args: exactly("USER"),
		Long: "Sign the certificate of a client. Its name is the user: root, admin-CLUSTER, operator-CLUSTER, apiserver-CLUSTER,\n" +
			"local-CLUSTER and node-NODE are this cluster's own; remote and remote-CLUSTER are the readers of other clusters, whom\n" +
			"the peer CA signs. A mesh without API servers reads the etcd itself: --direct lets the cluster CA sign them.",
		Example: "  weft cert client node-a1\n  weft cert client remote-west --out /tmp/for-west",
		RunE: func(_ *cobra.Command, args []string) error {
			user, role, life := args[0], trust.RoleCluster, trust.UserLife
			if user == "remote" || strings.HasPrefix(user, "remote-") {
				life = trust.PeerLife
				if !direct {
					role = trust.RolePeer
				}
			}
			return f.issue(a, role, user, func(by *trust.Authority, pub crypto.PublicKey) (trust.Chain, error) {
				return by.SignUser(pub, user, orLife(f.life, life))
			})
		},
	}
	f.add(cmd.Flags(), "90 days, of other clusters 365")
	cmd.Flags().BoolVar(&direct, "direct", false, "for another cluster that reads the etcd itself")
	return cmd
}

func certRequest(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "request NAME", Short: "Make a key here, and a request that is signed elsewhere with --csr", Args: exactly("NAME"),
		Example: "  weft cert request node-a1 --out /etc/weft        # on the node\n" +
			"  weft cert client node-a1 --csr node-a1.csr       # where the authorities are",
		RunE: func(_ *cobra.Command, args []string) error {
			csr, key, err := trust.Request(out, args[0])
			if err != nil {
				return err
			}
			return printOne(a, map[string]any{"schema": schemaName, "csr": csr, "key": key}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: the request, no secret\n%s: the key, for nobody else's eyes\n", csr, key)
			})
		},
	}
	cmd.Flags().StringVar(&out, "out", ".", "directory for NAME.csr and NAME.key")
	return cmd
}

func orLife(asked, otherwise time.Duration) time.Duration {
	if asked != 0 {
		return asked
	}
	return otherwise
}
