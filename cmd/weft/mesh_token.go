// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/apiserver/join"
	"github.com/weft-net/weft/kvstore/schema"
)

func meshToken(a *app) *cobra.Command {
	return group("token", "Permissions for other clusters to join this one", meshTokenCreate(a), meshTokenList(a), meshTokenDelete(a))
}

type tokenView struct {
	ID      string    `json:"id"`
	Joiner  string    `json:"joiner"`
	JoinID  uint32    `json:"joinerID,omitempty"`
	State   string    `json:"state"` // open, used, expired
	Approve bool      `json:"approve"`
	Expires time.Time `json:"expires"`
	UsedAt  time.Time `json:"usedAt,omitzero"`
}

func meshTokenCreate(a *app) *cobra.Command {
	var flags meshFlags
	var order join.Order
	cmd := &cobra.Command{
		Use: "create --for CLUSTER", Short: "Make a token with which one cluster may join once", Args: atMost(0),
		Long: "Make a token with which one cluster may join this one, once. It is printed and kept nowhere: hand it over by\n" +
			"a way that nobody else reads. Whoever has it may join under that cluster's name until it is used or expires,\n" +
			"and then read this cluster's state. The API servers listen for it on join.listen as long as it is open.",
		Example: "  weft mesh token create --config /etc/weft/apiserver.yaml --for west > token\n" +
			"  weft mesh join --config /etc/weft/apiserver.yaml < token        # on the side of west",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if order.For == "" {
				return usage(cmd, errors.New("--for is missing"))
			}
			cfg, client, err := flags.open(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			if len(order.Endpoints) == 0 {
				order.Endpoints = cfg.Join.Endpoints
			}
			if cfg.Join.Listen == "" || len(order.Endpoints) == 0 {
				return hint(errors.New("join.listen and join.endpoints are not set: nobody could join here"),
					"set them in %s and start the API server anew", flags.config)
			}
			t, err := join.NewToken(cmd.Context(), client, join.SettingsOf(cfg), order)
			if err != nil {
				return meshHint(err)
			}
			v := map[string]any{"schema": schemaName, "id": t.ID.String(), "token": t.Text(), "joiner": t.Joiner, "expires": t.Expires}
			return printOne(a, v, func(w io.Writer) {
				fmt.Fprintf(a.err, "%s, good until %s, for one use; on the side of %s: weft mesh join\n", t, t.Expires.Format(time.DateTime+" MST"), t.Joiner)
				fmt.Fprintln(w, t.Text())
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&order.For, "for", "", "name of the cluster that may join")
	f.Uint32Var(&order.ID, "id", 0, "its cluster id; any that is free if not given")
	f.DurationVar(&order.Life, "life", join.DefaultLife, "how long the token is good, 1m to 24h")
	f.BoolVar(&order.Approve, "approve", false, "whoever uses it waits for 'weft mesh approve', with six words to compare")
	f.StringSliceVar(&order.Endpoints, "endpoints", nil, "host:port where it is joined; default: join.endpoints of the settings")
	flags.add(a, cmd)
	return cmd
}

func meshTokenList(a *app) *cobra.Command {
	var flags meshFlags
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "Show tokens, without what makes them ones", Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, client, err := flags.open(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			tokens, err := join.Tokens(cmd.Context(), client)
			if err != nil {
				return storeHint(err)
			}
			return printList(a, tokenViews(tokens), []column[tokenView]{
				{"ID", false, func(v tokenView) string { return v.ID[:8] }},
				{"FOR", false, func(v tokenView) string { return v.Joiner }},
				{"STATE", false, func(v tokenView) string { return v.State }},
				{"EXPIRES", false, func(v tokenView) string { return v.Expires.Local().Format(time.DateTime) }},
				{"USED", false, func(v tokenView) string { return age(v.UsedAt) }},
			})
		},
	}
	flags.add(a, cmd)
	return cmd
}

func tokenViews(tokens map[schema.TokenID]schema.Token) []tokenView {
	var out []tokenView
	for id, t := range tokens {
		out = append(out, tokenView{id.String(), t.Joiner, t.JoinerID, join.TokenState(t), t.Approve, t.Expires, t.UsedAt})
	}
	slices.SortFunc(out, func(x, y tokenView) int {
		if c := x.Expires.Compare(y.Expires); c != 0 {
			return c
		}
		return strings.Compare(x.ID, y.ID)
	})
	return out
}

func meshTokenDelete(a *app) *cobra.Command {
	var flags meshFlags
	cmd := &cobra.Command{
		Use: "delete ID", Aliases: []string{"rm"}, Short: "Take a token back; who has joined with it stays", Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, client, err := flags.open(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			id, err := join.DeleteToken(cmd.Context(), client, args[0])
			if err != nil {
				return storeHint(err)
			}
			return printOne(a, map[string]any{"schema": schemaName, "deleted": id.String()}, func(w io.Writer) {
				fmt.Fprintf(w, "token %s is good for nothing any more\n", id)
			})
		},
	}
	flags.add(a, cmd)
	return cmd
}
