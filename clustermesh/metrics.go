// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The metrics are read from the status when they are collected; nothing is counted twice.
func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("weft_clustermesh_"+name, help, labels, nil)
}

// collector shows a mesh to Prometheus.
type collector struct{ mesh *Mesh }

// Describe sends nothing: remotes come and go, so the collector is an unchecked one.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads the status.
func (c collector) Collect(out chan<- prometheus.Metric) {
	st := c.mesh.Status()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	truth := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	age := func(t time.Time) float64 { return time.Since(t).Seconds() }
	gauge(describe("remotes", "Remote clusters that the mesh directory names."), float64(len(st.Remotes)))
	gauge(describe("directory_usable", "1 while the mesh directory can be read and believed."), truth(st.Directory.Problem == ""))
	connected := describe("remote_connected", "1 while a remote cluster's store is being followed.", "cluster")
	ready := describe("remote_ready", "1 while every resource of a remote was listed and is followed.", "cluster")
	refusals := describe("remote_config_refused_total", "How often what a remote says about itself was refused.", "cluster")
	pinned := describe("remote_pinned", "1 where it is known what a remote joined with, and it is held to that.", "cluster")
	beside := describe("remote_pod_cidrs_not_joined", "Pod CIDRs that a remote's nodes declare beside those that it joined with.", "cluster")
	certificate := describe("remote_certificate_seconds",
		"How long a certificate of a remote's connection is good: ours, and its server's as it was shown last.", "cluster", "of")
	copied := describe("remote_copied", "1 while a remote is read from its copy in our own store.", "cluster")
	heartbeat := describe("remote_heartbeat_age_seconds", "Time since a remote's last heartbeat arrived.", "cluster")
	rows := describe("remote_rows", "Rows mirrored from a remote.", "cluster", "resource")
	confirmed := describe("remote_confirmed_age_seconds", "Time since a remote's rows were known to be the newest.", "cluster", "resource")
	rejected := describe("remote_rejected_rows_total", "Values of a remote that were refused wholly or in part.", "cluster", "resource")
	faults := describe("remote_rejected_rows", "Keys of a remote that are refused now.", "cluster", "resource")
	for _, r := range st.Remotes {
		gauge(connected, truth(r.Connected), r.Name)
		gauge(ready, truth(r.Phase == PhaseReady), r.Name)
		for of, end := range map[string]time.Time{"ours": r.Certificates.Ours, "server": r.Certificates.Server} {
			if !end.IsZero() {
				gauge(certificate, time.Until(end).Seconds(), r.Name, of)
			}
		}
		gauge(copied, truth(r.Copy != nil), r.Name)
		out <- prometheus.MustNewConstMetric(refusals, prometheus.CounterValue, float64(r.Refusals), r.Name)
		gauge(pinned, truth(r.Pin != nil), r.Name)
		if r.Pin != nil {
			gauge(beside, float64(len(r.Pin.Beside)), r.Name)
		}
		if !r.Heartbeat.IsZero() {
			gauge(heartbeat, age(r.Heartbeat), r.Name)
		}
		for _, s := range r.Resources {
			resource := string(s.Resource)
			gauge(rows, float64(s.Rows), r.Name, resource)
			if !s.Confirmed.IsZero() {
				gauge(confirmed, age(s.Confirmed), r.Name, resource)
			}
			out <- prometheus.MustNewConstMetric(rejected, prometheus.CounterValue, float64(s.Rejected), r.Name, resource)
			gauge(faults, float64(s.Faults), r.Name, resource)
		}
	}
}
