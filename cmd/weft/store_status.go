// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/kvstore/care"
)

func storeStatus(a *app) *cobra.Command {
	var etcd etcdFlags
	var counts bool
	cmd := &cobra.Command{
		Use: "status", Short: "Judge the cluster's etcd; the exit code is its health (0 healthy, 3 not)", Args: atMost(0),
		Long: "Judge the cluster's etcd: members, size against quota, alarms, history, last backup, leases, keys by prefix.\n" +
			"What the certificate may not see is named. The certificates of admin and root may see all.",
		Example: "  weft store status --etcd /etc/weft/etcd-admin.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := etcd.open(cmd.Context(), a)
			if err != nil {
				return err
			}
			defer client.Close()
			s, err := care.Read(cmd.Context(), client, care.Options{Bytes: !counts})
			if err != nil {
				return err
			}
			if err := printOne(a, storeStatusOf(s), func(w io.Writer) { printStoreStatus(a, w, s) }); err != nil {
				return err
			}
			if !s.Healthy() {
				return errUnhealthy
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&counts, "no-bytes", false, "only count keys, do not read every value for its size")
	etcd.add(a, cmd.Flags())
	return cmd
}

func printStoreStatus(a *app, w io.Writer, s care.Status) {
	color := a.colored(w)
	var rows [][]string
	for _, m := range s.Members {
		rows = append(rows, memberRow(m))
	}
	printTable(w, []string{"MEMBER", "ENDPOINT", "VERSION", "ROLE", "BEHIND", "SIZE", "OF QUOTA", "IN USE", "FREE"}, rows)
	fmt.Fprintln(w)

	fact := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-11s %s\n", name, fmt.Sprintf(format, args...))
	}
	fact("revision", "%d", s.Revision)
	switch {
	case s.Compacted == 0:
		fact("history", "nothing was compacted, or it was not seen")
	case s.HistoryFrom.IsZero():
		fact("history", "from revision %d", s.Compacted)
	default:
		fact("history", "from revision %d, %s", s.Compacted, ago(s.HistoryFrom))
	}
	fact("epoch", "%s", orDash(s.Epoch.ID))
	fact("heartbeat", "%s", heartbeatText(s))
	if s.Backup.At.IsZero() {
		fact("backup", "-")
	} else {
		fact("backup", "%s, revision %d, %s, on %s", ago(s.Backup.At), s.Backup.Revision, bytesText(s.Backup.Size), orDash(s.Backup.Host))
	}
	if s.Leases >= 0 {
		fact("leases", "%d", s.Leases)
	}
	if s.Auth != nil {
		fact("auth", "%s", map[bool]string{true: "on", false: "off"}[*s.Auth])
	}
	if len(s.Prefixes) > 0 {
		fmt.Fprintln(w)
		rows = nil
		for _, p := range s.Prefixes {
			size := "-"
			if p.Bytes >= 0 {
				size = bytesText(p.Bytes)
			}
			rows = append(rows, []string{p.Prefix, fmt.Sprint(p.Keys), size})
		}
		printTable(w, []string{"PREFIX", "KEYS", "BYTES"}, rows)
	}
	fmt.Fprintln(w)
	for _, u := range s.Unseen {
		fmt.Fprintf(w, "%s not seen: %s: %s\n", mark(api.Health_HEALTH_OFF, color), u.What, u.Why)
	}
	for _, p := range s.Problems {
		health := api.Health_HEALTH_WARNING
		if p.Failed {
			health = api.Health_HEALTH_FAILED
		}
		fmt.Fprintf(w, "%s %s\n  %s\n", mark(health, color), p.What, p.Means)
		for i, step := range p.Steps {
			if len(p.Steps) == 1 {
				fmt.Fprintf(w, "  -> %s\n", step)
			} else {
				fmt.Fprintf(w, "  %d. %s\n", i+1, step)
			}
		}
	}
	if len(s.Problems) == 0 {
		fmt.Fprintf(w, "%s healthy\n", mark(api.Health_HEALTH_OK, color))
	}
}

func memberRow(m care.Member) []string {
	if m.Error != "" {
		return []string{orDash(m.Name), m.Endpoint, "-", "away", "-", "-", "-", "-", "-"}
	}
	role := "follower"
	switch {
	case m.Leader:
		role = "leader"
	case m.Learner:
		role = "learner"
	case !m.HasLeader:
		role = "no leader"
	}
	full := "unknown"
	if m.Quota > 0 {
		full = fmt.Sprintf("%.1f %% of %s", 100*m.Full(), bytesText(m.Quota))
	}
	return []string{
		orDash(m.Name), m.Endpoint, m.Version, role, fmt.Sprint(m.Lag),
		bytesText(m.Size), full, bytesText(m.InUse), bytesText(m.Fragmented()),
	}
}

// heartbeatText says how the operator's clock and ours go together as far as that can be told.
func heartbeatText(s care.Status) string {
	switch d := s.At.Sub(s.Heartbeat); {
	case s.Heartbeat.IsZero():
		return "-"
	case d < -2*time.Second:
		return fmt.Sprintf("%s in the future: the operator's clock is ahead of this one", (-d).Round(time.Second))
	default:
		return ago(s.Heartbeat) + " by the operator's clock"
	}
}

// bytesText prints bytes in the unit that people read.
func bytesText(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
