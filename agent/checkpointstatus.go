// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/clustermesh"
	"github.com/weft-net/weft/state"
)

// line tells what is kept, and what is in force only because it was.
func (c *checkpoints) line() *api.StatusLine {
	stores := c.snapshot()
	files, rows := 0, 0
	var oldest time.Time
	var serving, refused, failed []string
	for _, cluster := range slices.Sorted(maps.Keys(stores)) {
		s := stores[cluster]
		if !s.written.IsZero() {
			files, rows = files+1, rows+s.rows
			if oldest.IsZero() || s.written.Before(oldest) {
				oldest = s.written
			}
		}
		if age := c.serving(cluster); age != "" {
			serving = append(serving, cluster+": "+age)
		}
		if s.refused != "" {
			refused = append(refused, cluster+": "+s.refused)
		}
		if s.failed != nil {
			failed = append(failed, s.failed.Error())
		}
	}
	l := ok("checkpoint", "%d rows of %d clusters kept for a restart", rows, files)
	if files == 0 {
		l.Summary = "nothing kept yet"
	}
	l.Confirmed = nanos(oldest)
	if len(serving) > 0 {
		l.Summary += "; in force " + strings.Join(serving, ", ")
	}
	switch {
	case len(failed) > 0:
		return fail(l, strings.Join(first(failed, 3), "; "), "make room for state-dir "+c.cfg.StateDir+", or make it writable")
	case len(refused) > 0:
		return warn(l, strings.Join(first(refused, 3), "; "), "nothing was taken from it, its store is read instead; keep the file to look into it, or remove it")
	}
	return l
}

// serving says how old the rows of a cluster are that are in force only because they were kept;
// empty where the store itself was listed.
func (c *checkpoints) serving(cluster string) string {
	s := c.store(cluster)
	src, tables := clustermesh.SourceOf(cluster), c.remote
	if cluster == c.cfg.Cluster {
		src, tables = etcd, c.own
	}
	for name := range s.tables {
		if st, expected := standing(tables[name], src); expected && !st.Synced {
			return fmt.Sprintf("from checkpoint, %v old", age(time.Since(s.at)))
		}
	}
	return ""
}

// age is a duration as people say it.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	default:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
}

func (c *checkpoints) snapshot() map[string]keptStore {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.stores)
}

func standing(t keptTable, src state.Source) (state.SourceStatus, bool) {
	for _, s := range t.Sources() {
		if s.Source == src {
			return s, true
		}
	}
	return state.SourceStatus{}, false
}

// checkpointCollector reports how old the files are.
type checkpointCollector struct {
	*checkpoints
	written, rows *prometheus.Desc
}

func newCheckpointCollector(c *checkpoints) checkpointCollector {
	return checkpointCollector{
		c,
		prometheus.NewDesc("weft_agent_checkpoint_confirmed_seconds", "Unix time when the rows of the file were last known to be right.", []string{"cluster"}, nil),
		prometheus.NewDesc("weft_agent_checkpoint_rows", "Rows of a cluster's store that are kept for a restart.", []string{"cluster"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c checkpointCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.written
	ch <- c.rows
}

// Collect implements prometheus.Collector.
func (c checkpointCollector) Collect(ch chan<- prometheus.Metric) {
	for cluster, s := range c.snapshot() {
		if s.written.IsZero() {
			continue
		}
		ch <- prometheus.MustNewConstMetric(c.written, prometheus.GaugeValue, float64(s.written.UnixNano())/1e9, cluster)
		ch <- prometheus.MustNewConstMetric(c.rows, prometheus.GaugeValue, float64(s.rows), cluster)
	}
}
