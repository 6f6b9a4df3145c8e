// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/apiserver/join"
)

// joinPatience is how long a door that is not open is taken for one that opens in a moment.
const joinPatience = 5 * time.Second

// maxTokenFile is more than any token has.
const maxTokenFile = 16 << 10

type joinedView struct {
	Schema    string    `json:"schema"`
	Cluster   string    `json:"cluster"`
	ID        uint32    `json:"id"`
	Code      string    `json:"code"`
	Root      string    `json:"root"` // SHA-256
	Expires   time.Time `json:"certificateExpires"`
	Ready     bool      `json:"ready"`
	Seen      string    `json:"notSeen,omitempty"`
	SeenThere string    `json:"notSeenThere,omitempty"`
}

func meshJoin(a *app) *cobra.Command {
	var flags meshFlags
	var file string
	var oneWay bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "join", Short: "Join the cluster that made a token", Args: atMost(0),
		Long: "Join the cluster that made a token, which is read from the standard input or a file, never from the command\n" +
			"line. Certificates are exchanged both ways, no private key leaves its cluster, both sides write what they\n" +
			"need, and each waits for the other's heartbeat. If it is cut off, run it again with the same token. Compare\n" +
			"the six words with those on the other side: they are the same if nobody stands between.",
		Example: "  weft mesh join --config /etc/weft/apiserver.yaml < token",
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := readToken(a, file)
			if err != nil {
				return err
			}
			t, err := join.ParseToken(text)
			if err != nil {
				return hint(err, "weft mesh token create --for CLUSTER (on the other side)")
			}
			cfg, client, err := flags.open(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			j := join.Joiner{
				Client: client, Settings: join.SettingsOf(cfg), OneWay: oneWay, Patience: joinPatience, See: wait,
				Waiting: func(code string) {
					fmt.Fprintf(a.err, "somebody has to approve on the side of %s: weft mesh approve %s\nthe words are: %s\n", t.Issuer, t.Joiner, code)
				},
			}
			got, err := j.Join(cmd.Context(), t)
			if err != nil {
				return meshHint(err)
			}
			v := joinedView{
				schemaName, got.Cluster, got.ID, got.Code, got.Root.String(), got.Expires,
				got.Seen == "" && got.SeenThere == "", got.Seen, got.SeenThere,
			}
			if err := printOne(a, v, func(w io.Writer) { printJoined(a, w, v) }); err != nil {
				return err
			}
			if !v.Ready {
				return errUnhealthy
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "token-file", "", "file of the token; default: the standard input")
	cmd.Flags().BoolVar(&oneWay, "one-way", false, "read the other cluster and not be read by it: where it cannot reach this one")
	cmd.Flags().DurationVar(&wait, "wait", 30*time.Second, "how long to wait for the other cluster's heartbeat")
	flags.add(a, cmd)
	return cmd
}

// readToken reads the text of a token. It is never part of an error.
func readToken(a *app, file string) (string, error) {
	in := a.in
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("token: %w", err)
		}
		defer f.Close()
		in = f
	} else if f, ok := a.in.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
			fmt.Fprintln(a.err, "paste the token, and end with Ctrl-D on a line of its own:")
		}
	}
	b, err := io.ReadAll(io.LimitReader(in, maxTokenFile+1))
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	if len(b) > maxTokenFile {
		return "", errors.New("token: this is more than a token has")
	}
	return string(b), nil
}

func printJoined(a *app, w io.Writer, v joinedView) {
	color := a.colored(w)
	line := func(bad, text, next string) {
		health := api.Health_HEALTH_OK
		if bad != "" {
			health = api.Health_HEALTH_WARNING
		} else {
			next = ""
		}
		printLine(w, mark(health, color), 0, text, "", bad, next)
	}
	line("", fmt.Sprintf("joined %s (%d); its certificate for us is good until %s", v.Cluster, v.ID, v.Expires.Format(time.DateOnly)), "")
	line(v.Seen, "its heartbeat is seen here", "weft mesh troubleshoot "+v.Cluster+"; the API server goes on looking for it")
	line(v.SeenThere, "ours is seen there", "weft mesh troubleshoot, on the side of "+v.Cluster)
	fmt.Fprintf(w, "  words  %s\n  root   %s\n", v.Code, v.Root)
}
