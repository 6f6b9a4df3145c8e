// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package care

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weft-net/weft/kvstore"
)

// Exporter looks at a store at intervals and shows what it found as metrics. What was not seen is not
// exported.
type Exporter struct {
	client *kvstore.Client
	every  time.Duration

	mu   sync.Mutex
	last Status // zero: nothing yet
}

// NewExporter returns an exporter that looks every so often, and registers it.
func NewExporter(c *kvstore.Client, every time.Duration, reg prometheus.Registerer) (*Exporter, error) {
	if every <= 0 {
		return nil, errors.New("store metrics: the interval is not positive")
	}
	e := &Exporter{client: c, every: every}
	return e, reg.Register(e)
}

// Run looks until ctx ends.
func (e *Exporter) Run(ctx context.Context) error {
	tick := time.NewTicker(e.every)
	defer tick.Stop()
	for {
		s, err := Read(ctx, e.client, Options{})
		if err != nil {
			return nil // only ctx ends a look
		}
		e.mu.Lock()
		e.last = s
		e.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("weft_store_"+name, help, labels, nil)
}

// Describe sends nothing: members come and go, so the exporter is an unchecked one.
func (e *Exporter) Describe(chan<- *prometheus.Desc) {}

// Collect shows the last look.
func (e *Exporter) Collect(out chan<- prometheus.Metric) {
	e.mu.Lock()
	s := e.last
	e.mu.Unlock()
	if s.At.IsZero() {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	one := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	var (
		up     = describe("member_up", "1 if a member of the store answered.", "member")
		size   = describe("size_bytes", "Size of a member's database file.", "member")
		inUse  = describe("in_use_bytes", "What of a member's database file is not free.", "member")
		quota  = describe("quota_bytes", "Size at which a member takes no row any more; from etcd 3.6 on.", "member")
		behind = describe("member_behind", "Entries of the log that a member has not applied yet.", "member")
	)
	leader := false
	for _, m := range s.Members {
		name := m.label()
		gauge(up, one(m.Error == ""), name)
		if m.Error != "" {
			continue
		}
		leader = leader || m.HasLeader
		gauge(size, float64(m.Size), name)
		gauge(inUse, float64(m.InUse), name)
		gauge(behind, float64(m.Lag), name)
		if m.Quota > 0 {
			gauge(quota, float64(m.Quota), name)
		}
	}
	gauge(describe("looked_timestamp_seconds", "When the store was last looked at, Unix time."), float64(s.At.Unix()))
	gauge(describe("has_leader", "1 while the store has a leader, so that rows can be written."), one(leader))
	for _, kind := range []string{NoSpace, Corrupt} {
		raised := 0
		for _, a := range s.Alarms {
			if a.Kind == kind {
				raised++
			}
		}
		gauge(describe("alarms", "Members that raised an alarm: NOSPACE or CORRUPT.", "alarm"), float64(raised), kind)
	}
	gauge(describe("revision", "Newest revision of the store."), float64(s.Revision))
	if !s.HistoryFrom.IsZero() {
		gauge(describe("history_seconds", "How far back the store can be read: what compaction left."), s.At.Sub(s.HistoryFrom).Seconds())
	}
	if !s.Backup.At.IsZero() {
		gauge(describe("backup_timestamp_seconds", "When the last backup was taken, Unix time; absent if none is known."), float64(s.Backup.At.Unix()))
	}
}
