// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/apiserver/trust"
)

func certShow(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "show FILE|HOST:PORT", Short: "Print the certificates of a file, or those that a server shows", Args: exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			certs, err := trust.ReadCertificates(args[0])
			if _, _, bad := net.SplitHostPort(args[0]); err != nil && bad == nil && !strings.ContainsRune(args[0], filepath.Separator) {
				chain, found := trust.Target{Address: args[0]}.Connect(cmd.Context())
				if err = nil; len(chain) == 0 {
					last := found[len(found)-1]
					err = hint(fmt.Errorf("%s: %s", last.Subject, last.Text), "%s", last.Remedy)
				}
				certs = chain
			}
			if err != nil {
				return err
			}
			var all []trust.Summary
			for _, c := range certs {
				all = append(all, trust.Summarize(c))
			}
			return printList(a, all, []column[trust.Summary]{
				{"NAME", false, func(s trust.Summary) string { return orDash(s.Name) }},
				{"KIND", false, func(s trust.Summary) string { return s.Kind }},
				{"SIGNED BY", false, func(s trust.Summary) string { return orDash(s.Issuer) }},
				{"FROM", true, func(s trust.Summary) string { return s.From.Format(time.RFC3339) }},
				{"UNTIL", false, func(s trust.Summary) string { return s.Until.Format(time.RFC3339) }},
				{"HOSTS", false, func(s trust.Summary) string { return orDash(strings.Join(s.Hosts, ",")) }},
				{"KEY", true, func(s trust.Summary) string { return s.Key }},
				{"SERIAL", true, func(s trust.Summary) string { return s.Serial }},
				{"SHA-256", true, func(s trust.Summary) string { return s.Fingerprint }},
			})
		},
	}
	return cmd
}
