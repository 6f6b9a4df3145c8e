// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/agent/api"
)

// statusView is what status prints as json; health is ok, warning, failed or off.
type statusView struct {
	Schema    string       `json:"schema"`
	Node      string       `json:"node"`
	Cluster   string       `json:"cluster"`
	ClusterID uint32       `json:"clusterID"`
	Version   string       `json:"version"`
	PID       uint32       `json:"pid"`
	Mode      string       `json:"mode"`
	PodCIDRs  []string     `json:"podCIDRs"`
	Started   time.Time    `json:"started"`
	Healthy   bool         `json:"healthy"`
	Lines     []lineView   `json:"lines"`
	Remotes   []remoteView `json:"remotes"`
}

type lineView struct {
	Component string `json:"component"`
	Health    string `json:"health"`
	Summary   string `json:"summary"`
	Reason    string `json:"reason,omitempty"`
	Hint      string `json:"hint,omitempty"`
	Since     any    `json:"since,omitempty"`
	Confirmed any    `json:"confirmed,omitempty"`
}

type remoteView struct {
	Name      string     `json:"name"`
	ID        uint32     `json:"id"`
	Health    string     `json:"health"`
	State     string     `json:"state"`
	Reason    string     `json:"reason,omitempty"`
	Hint      string     `json:"hint,omitempty"`
	Since     any        `json:"since,omitempty"`
	Confirmed any        `json:"confirmed,omitempty"`
	Held      uint64     `json:"held,omitempty"` // rows in force that its store does not have
	Endpoints []string   `json:"endpoints"`
	Tables    []syncView `json:"tables"`
	// Until when our certificate for it is good, and its server's as it was shown last.
	OurCertificate    any `json:"ourCertificate,omitempty"`
	ServerCertificate any `json:"serverCertificate,omitempty"`
}

type syncView struct {
	Table     string `json:"table"`
	Synced    bool   `json:"synced"`
	Rows      uint64 `json:"rows"`
	Revision  int64  `json:"revision,omitempty"`
	Confirmed any    `json:"confirmed,omitempty"`
}

func healthText(h api.Health) string {
	switch h {
	case api.Health_HEALTH_OK:
		return "ok"
	case api.Health_HEALTH_FAILED:
		return "failed"
	case api.Health_HEALTH_OFF:
		return "off"
	case api.Health_HEALTH_WARNING:
		return "warning"
	}
	return "unknown"
}

// maybe is the time for json, or nothing for never.
func maybe(n int64) any {
	if n == 0 {
		return nil
	}
	return nanos(n)
}

func statusOf(s *api.StatusResponse) statusView {
	v := statusView{
		Schema: schemaName, Node: s.Node, Cluster: s.Cluster, ClusterID: s.ClusterId, Version: s.Version, PID: s.Pid,
		Mode: s.Mode, PodCIDRs: s.PodCidrs, Started: nanos(s.Started), Healthy: true, Lines: []lineView{}, Remotes: []remoteView{},
	}
	for _, l := range s.Lines {
		v.Healthy = v.Healthy && l.Health != api.Health_HEALTH_FAILED
		v.Lines = append(v.Lines, lineView{
			l.Component, healthText(l.Health), l.Summary, l.Reason, l.Hint, maybe(l.Since), maybe(l.Confirmed),
		})
	}
	for _, r := range s.Remotes {
		v.Healthy = v.Healthy && r.Health != api.Health_HEALTH_FAILED
		v.Remotes = append(v.Remotes, remoteOf(r))
	}
	return v
}

func remoteOf(r *api.RemoteCluster) remoteView {
	v := remoteView{
		Name: r.Name, ID: r.Id, Health: healthText(r.Health), State: r.State, Reason: r.Reason, Hint: r.Hint,
		Since: maybe(r.Since), Confirmed: maybe(r.Confirmed), Held: r.Held, Endpoints: r.Endpoints, Tables: []syncView{},
		OurCertificate: maybe(r.OurCertificate), ServerCertificate: maybe(r.ServerCertificate),
	}
	for _, t := range r.Synced {
		v.Tables = append(v.Tables, syncView{t.Table, t.Synced, t.Rows, t.Revision, maybe(t.Confirmed)})
	}
	return v
}

func statusCommand(a *app) *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "status", Short: "Judge this node; the exit code is its health (0 healthy, 3 not)", Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, conn, err := a.client()
			if err != nil {
				return err
			}
			defer conn.Close()
			s, err := healthyWithin(cmd.Context(), c, wait)
			if err != nil {
				return err
			}
			v := statusOf(s)
			if err := printOne(a, v, func(w io.Writer) { printStatus(a, w, s) }); err != nil {
				return err
			}
			if !v.Healthy {
				return errUnhealthy
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait so long for the node to be healthy")
	return cmd
}

func printStatus(a *app, w io.Writer, s *api.StatusResponse) {
	color := a.colored(w)
	fmt.Fprintf(w, "node %s  cluster %s (%d)  %s  up %s  weft %s\n", s.Node, s.Cluster, s.ClusterId, s.Mode, age(nanos(s.Started)), s.Version)
	width := 0
	for _, l := range s.Lines {
		width = max(width, len(l.Component))
	}
	for _, r := range s.Remotes {
		width = max(width, len("cluster ")+len(r.Name))
	}
	for _, l := range s.Lines {
		text := l.Summary
		if l.Confirmed != 0 {
			text += ", confirmed " + ago(nanos(l.Confirmed))
		}
		printLine(w, mark(l.Health, color), width, l.Component, text, l.Reason, l.Hint)
	}
	for _, r := range s.Remotes {
		printRemote(w, color, width, "cluster "+r.Name, r)
	}
}

func printRemote(w io.Writer, color bool, width int, label string, r *api.RemoteCluster) {
	text := r.State
	if r.Id != 0 {
		text += fmt.Sprintf(", id %d", r.Id)
	}
	for _, t := range r.Synced {
		text += fmt.Sprintf(", %d %s", t.Rows, t.Table)
		if !t.Synced {
			text += " (not synced)"
		}
	}
	if r.Confirmed != 0 {
		text += ", confirmed " + ago(nanos(r.Confirmed))
	}
	for _, c := range []struct {
		whose string
		end   int64
	}{{"our certificate", r.OurCertificate}, {"its server's", r.ServerCertificate}} {
		if c.end != 0 {
			text += fmt.Sprintf(", %s %s d", c.whose, daysLeft(nanos(c.end)))
		}
	}
	printLine(w, mark(r.Health, color), width, label, text, r.Reason, r.Hint)
}

func printLine(w io.Writer, sign string, width int, component, text, reason, next string) {
	fmt.Fprintf(w, "%s %-*s  %s\n", sign, width, component, text)
	if reason != "" {
		fmt.Fprintf(w, "  %-*s  %s\n", width, "", reason)
	}
	if next != "" {
		fmt.Fprintf(w, "  %-*s  -> %s\n", width, "", next)
	}
}

func ago(t time.Time) string {
	if s := age(t); s != "now" {
		return s + " ago"
	}
	return "now"
}
