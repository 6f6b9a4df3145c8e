// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/kvstore"
)

// stateCollector reports the size and the age of every table, and health.
type stateCollector struct {
	tables  []tableView
	watches func() []namedWatch
	status  func(context.Context) *api.StatusResponse
	store   *kvstore.Client

	certificate, rows, synced, confirmed, refused, refusals, health *prometheus.Desc
}

func newStateCollector(tables []tableView, watches func() []namedWatch, status func(context.Context) *api.StatusResponse, store *kvstore.Client) *stateCollector {
	return &stateCollector{
		tables: tables, watches: watches, status: status, store: store,
		certificate: prometheus.NewDesc("weft_agent_certificate_seconds",
			"How long a certificate of the connection to our own store is good: ours, and the server's as it was shown last.", []string{"of"}, nil),
		rows:      prometheus.NewDesc("weft_agent_table_rows", "Rows of a table by source.", []string{"table", "source"}, nil),
		synced:    prometheus.NewDesc("weft_agent_table_synced", "1 if the source has delivered everything it has.", []string{"table", "source"}, nil),
		confirmed: prometheus.NewDesc("weft_agent_table_confirmed_seconds", "Unix time when the source's rows were last known to be right.", []string{"table", "source"}, nil),
		refused:   prometheus.NewDesc("weft_agent_refused_rows", "Keys of our own store whose value is refused now (the first thousand).", []string{"table"}, nil),
		refusals:  prometheus.NewDesc("weft_agent_refused_rows_total", "Values of our own store that were refused.", []string{"table"}, nil),
		health:    prometheus.NewDesc("weft_agent_component_healthy", "1 if the line of weft status is ok, 0 if it is not.", []string{"component"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *stateCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.certificate
	ch <- c.rows
	ch <- c.synced
	ch <- c.confirmed
	ch <- c.refused
	ch <- c.refusals
	ch <- c.health
}

// Collect implements prometheus.Collector.
func (c *stateCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, t := range c.tables {
		for _, s := range t.about().Sources {
			gauge(c.rows, float64(s.Rows), t.name, s.Name)
			gauge(c.synced, one(s.Synced), t.name, s.Name)
			if s.Confirmed != 0 {
				gauge(c.confirmed, float64(s.Confirmed)/1e9, t.name, s.Name)
			}
		}
	}
	ours, _ := c.store.CertificateEnd() // a file that cannot be read is told by the line of etcd
	for of, end := range map[string]time.Time{"ours": ours, "server": c.store.ServerCertificateEnd()} {
		if !end.IsZero() {
			gauge(c.certificate, time.Until(end).Seconds(), of)
		}
	}
	for _, w := range c.watches() {
		gauge(c.refused, float64(len(w.status.Rejections)), w.table)
		ch <- prometheus.MustNewConstMetric(c.refusals, prometheus.CounterValue, float64(w.status.Rejected), w.table)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, l := range c.status(ctx).Lines {
		if l.Health != api.Health_HEALTH_OFF {
			gauge(c.health, one(l.Health == api.Health_HEALTH_OK), l.Component)
		}
	}
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
