// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/kvstore/embedded"
)

// etcdCommand is the process of a cluster's store. It is no part of what users call.
func etcdCommand() *cobra.Command {
	var cfg embedded.Config
	var ready string
	cmd := &cobra.Command{
		Use: "etcd", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := untilQuit(cmd.Context())
			defer stop()
			s, err := embedded.Start(ctx, cfg)
			if err != nil {
				return err
			}
			defer s.Stop()
			if err := writeFile(ready, nil, 0o644); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Dir, "dir", "", "data directory")
	f.StringVar(&cfg.ClientURL, "url", "", "where clients connect")
	f.StringVar(&cfg.CAFile, "ca", "", "authority of the clients")
	f.StringVar(&cfg.CertFile, "cert", "", "certificate of the server")
	f.StringVar(&cfg.KeyFile, "key", "", "key of the server")
	f.StringVar(&cfg.Token, "token", "", "what its cluster id is made of")
	f.StringVar(&cfg.Name, "member", "", "name of the member")
	f.StringVar(&cfg.PeerURL, "peer-url", "", "where the other members connect")
	f.StringToStringVar(&cfg.Cluster, "cluster", nil, "name=url of each member, if they are several")
	f.Int64Var(&cfg.QuotaBytes, "quota", 0, "how large the store may get, bytes")
	f.StringVar(&ready, "ready", "", "file to write once it serves")
	f.BoolVar(&cfg.UnsafeNoFsync, "no-fsync", true, "a lab does not outlive a power failure anyway")
	return cmd
}

// workloadCommand is the process of a pod.
func workloadCommand() *cobra.Command {
	var w who
	var ready string
	cmd := &cobra.Command{
		Use: "workload", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := untilQuit(cmd.Context())
			defer stop()
			return w.serve(ctx, func() error { return writeFile(ready, nil, 0o644) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&w.Name, "pod", "", "name of the pod")
	f.StringVar(&w.Cluster, "cluster", "", "its cluster")
	f.StringVar(&w.Node, "node", "", "its node")
	f.StringVar(&ready, "ready", "", "file to write once it serves")
	return cmd
}

// clientCommand is the process behind `weft lab load`, inside the pod.
func clientCommand() *cobra.Command {
	var ld Load
	var log string
	cmd := &cobra.Command{
		Use: "client", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			ctx, stop := untilQuit(cmd.Context())
			defer stop()
			out := io.Discard
			if log != "" {
				f, err := os.Create(log)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, f.Close()) }()
				out = f
			}
			sum, err := ld.Run(ctx, out)
			if err != nil {
				return err
			}
			format, _ := cmd.Flags().GetString("output")
			if err := sum.print(cmd.OutOrStdout(), format); err != nil {
				return err
			}
			if sum.Connects > 0 && sum.Connects == sum.Failed {
				return fmt.Errorf("no connect succeeded; the first: %s", sum.FirstError)
			}
			return nil
		},
	}
	ld.flags(cmd)
	cmd.Flags().StringVar(&log, "log", "", "file for the log")
	return cmd
}

func (l *Load) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&l.Target, "to", l.Target, "address:port to call (default: the lab's global service)")
	f.IntVar(&l.Rate, "rate", l.Rate, "new connections a second")
	f.IntVar(&l.Sessions, "sessions", l.Sessions, "connections to an echo server that stay open, one message a second each")
	f.DurationVar(&l.Duration, "duration", l.Duration, "how long; 0: until interrupted")
	f.DurationVar(&l.Timeout, "timeout", l.Timeout, "of one connect and its answer")
	f.StringVar(&l.Local, "source", l.Local, "source address")
}

// argv is the command line of the process that runs the load.
func (l Load) argv(weft, log, format string) []string {
	return []string{weft, "lab", "client", "--to", l.Target, "--rate", strconv.Itoa(l.Rate),
		"--sessions", strconv.Itoa(l.Sessions), "--duration", l.Duration.String(), "--timeout", l.Timeout.String(),
		"--source", l.Local, "--log", log, "-o", format}
}

// port is where the load's default target listens: sessions need an echo.
func (l Load) port() uint16 {
	if l.Sessions > 0 && l.Rate == 0 {
		return portEcho
	}
	return portWho
}

func hostPort(addr netip.Addr, port uint16) string { return netip.AddrPortFrom(addr, port).String() }

func (s Summary) print(w io.Writer, format string) error {
	if format == "json" {
		return json.NewEncoder(w).Encode(s)
	}
	_, err := fmt.Fprintf(w, "%d connects, %d failed; %d messages, %d sessions lost; p50 %v, p99 %v\n",
		s.Connects, s.Failed, s.Messages, s.Resets, s.P50, s.P99)
	for _, name := range slices.Sorted(maps.Keys(s.By)) {
		if err == nil {
			_, err = fmt.Fprintf(w, "  %6d × %s\n", s.By[name], name)
		}
	}
	return err
}
