// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// collector shows a mirror to Prometheus: what it reads is shown by the mesh, what it writes here.
type collector struct{ m *Mirror }

// Describe sends nothing: remotes come and go, so the collector is an unchecked one.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads what stands.
func (c collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(name, help string, v float64, labels ...string) {
		names := []string{"cluster"}[:len(labels)]
		desc := prometheus.NewDesc("weft_mirror_"+name, help, names, nil)
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, labels...)
	}
	truth := map[bool]float64{true: 1}
	c.m.mu.Lock()
	leading, pending := c.m.leading, c.m.pending
	c.m.mu.Unlock()
	gauge("leader", "Whether this mirror is the one that writes copies.", truth[leading])
	gauge("pending_rows", "Rows of copies that this mirror has still to write or delete.", float64(pending))
	for row := range c.m.stored.rows.All() {
		r := row.Value
		if !r.Confirmed.IsZero() {
			// What the mirror said by its clock, and the time since by ours.
			gauge("copy_age_seconds", "Time since the copy of a remote was known to be what it has.",
				(r.Written.Sub(r.Confirmed) + time.Since(row.Changed)).Seconds(), row.Key)
		}
		gauge("copy_rows", "Rows of the copy of a remote.", float64(r.Rows), row.Key)
		gauge("copy_complete", "Whether the copy of a remote is all that it has.", truth[r.Complete], row.Key)
		gauge("copy_removed", "Whether the copy of a remote goes soon, because it has no client file any more.", truth[!r.Removed.IsZero()], row.Key)
	}
}
