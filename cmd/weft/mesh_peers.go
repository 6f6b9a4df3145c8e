// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/apiserver/join"
	"github.com/weft-net/weft/kvstore/schema"
)

type peerView struct {
	Name      string    `json:"name"`
	State     string    `json:"state"` // waiting, pending, half-joined, joined, left
	Since     time.Time `json:"since"`
	ID        uint32    `json:"id"`
	PodCIDRs  []string  `json:"podCIDRs"`
	Endpoints []string  `json:"endpoints"`
	Code      string    `json:"code,omitempty"`
	Root      string    `json:"root,omitempty"`
	OneWay    bool      `json:"oneWay"`
	// Issued is how long the newest certificate is good that it has from us, Ours the one that we have.
	Issued time.Time `json:"issuedExpires,omitzero"`
	Ours   time.Time `json:"oursExpires,omitzero"`
}

func meshPeers(a *app) *cobra.Command {
	var flags meshFlags
	cmd := &cobra.Command{
		Use: "peers", Short: "Show the clusters that joined with a token, and those that left", Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, client, err := flags.open(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			peers, err := join.Peers(cmd.Context(), client)
			if err != nil {
				return storeHint(err)
			}
			s := join.SettingsOf(cfg)
			var out []peerView
			for _, name := range slices.Sorted(maps.Keys(peers)) {
				out = append(out, peerOf(s, name, peers[name]))
			}
			return printList(a, out, []column[peerView]{
				{"CLUSTER", false, func(v peerView) string { return v.Name }},
				{"ID", false, func(v peerView) string { return fmt.Sprint(v.ID) }},
				{"STATE", false, func(v peerView) string { return v.State }},
				{"SINCE", false, func(v peerView) string { return age(v.Since) }},
				{"POD CIDRS", false, func(v peerView) string { return orDash(strings.Join(v.PodCIDRs, " ")) }},
				{"DAYS (ITS CERT)", false, func(v peerView) string { return daysLeft(v.Issued) }},
				{"DAYS (OURS)", false, func(v peerView) string { return daysLeft(v.Ours) }},
				{"WORDS", false, func(v peerView) string { return orDash(v.Code) }},
				{"ENDPOINTS", true, func(v peerView) string { return orDash(strings.Join(v.Endpoints, " ")) }},
				{"ROOT", true, func(v peerView) string { return orDash(v.Root) }},
			})
		},
	}
	flags.add(a, cmd)
	return cmd
}

func peerOf(s join.Settings, name string, p schema.Peer) peerView {
	v := peerView{
		Name: name, State: join.PeerState(p), Since: p.Since, ID: p.ID, Endpoints: p.Endpoints, OneWay: p.OneWay, PodCIDRs: []string{},
	}
	for _, c := range p.PodCIDRs {
		v.PodCIDRs = append(v.PodCIDRs, c.String())
	}
	for _, i := range p.Issued {
		if !i.Revoked {
			v.Issued = i.Expires
		}
	}
	// Without the files of the API server the rows still tell the rest.
	v.Code, v.Root, v.Ours = s.PeerDetails(name, p)
	return v
}

// daysLeft counts the days of a certificate.
func daysLeft(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return fmt.Sprint(int(time.Until(t).Hours() / 24))
}

func meshApprove(a *app) *cobra.Command {
	var flags meshFlags
	cmd := &cobra.Command{
		Use: "approve CLUSTER", Short: "Let a cluster in that waits for it; compare the words of 'weft mesh peers' first", Args: exactly("CLUSTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, client, err := flags.open(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			p, err := join.Approve(cmd.Context(), client, args[0])
			if err != nil {
				return meshHint(err)
			}
			v := peerOf(join.SettingsOf(cfg), args[0], p)
			return printOne(a, v, func(w io.Writer) { fmt.Fprintf(w, "%s (%d) is let in; the words are: %s\n", v.Name, v.ID, v.Code) })
		},
	}
	flags.add(a, cmd)
	return cmd
}

func meshLeave(a *app) *cobra.Command {
	var flags meshFlags
	cmd := &cobra.Command{
		Use: "leave CLUSTER", Short: "End the peering with a cluster", Args: exactly("CLUSTER"),
		Long: "End the peering with a cluster, on this side: the API servers refuse its name and its certificates and cut\n" +
			"off its streams; its client file goes, and so what is mirrored of it; then the key and the\n" +
			"certificates for it go. Run it where the client file is, and on the other side too.",
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, client, err := flags.open(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			left, err := join.Leave(cmd.Context(), client, join.SettingsOf(cfg), args[0])
			if err != nil {
				return meshHint(err)
			}
			v := map[string]any{
				"schema": schemaName, "cluster": left.Cluster, "refused": left.Refused, "certificates": left.Certificates, "removed": left.Removed,
			}
			return printOne(a, v, func(w io.Writer) {
				fmt.Fprintf(w, "%s and its %d certificates are refused from now on\n", left.Cluster, left.Certificates)
				if left.Removed {
					fmt.Fprintln(w, "its client file is removed; what is mirrored of it goes")
				} else {
					fmt.Fprintln(w, "it had no client file here: see that none is left where other API servers of this cluster run")
				}
				fmt.Fprintf(w, "on the side of %s: weft mesh leave %s\n", left.Cluster, cfg.Cluster)
			})
		},
	}
	flags.add(a, cmd)
	return cmd
}
