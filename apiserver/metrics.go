// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weft-net/weft/kvstore"
)

// collector reads the metrics of a server when they are asked for.
type collector struct {
	s     *Server
	store *kvstore.Client
}

// metric is one of them.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(*reading) float64
}

// reading is the state of a server at one moment.
type reading struct {
	s                *Server
	stale, holding   float64
	held, silent     float64
	revision, keys   float64
	bytes, history   float64
	revisions        float64
	reaches          float64
	streams, watches float64
	answered         float64
	encoded          float64
	server, client   float64 // of certificates
}

func metrics() []metric {
	gauge := func(name, help string, read func(*reading) float64) metric {
		return metric{prometheus.NewDesc("weft_apiserver_"+name, help, nil, nil), prometheus.GaugeValue, read}
	}
	counter := func(name, help string, read func(*reading) float64) metric {
		return metric{prometheus.NewDesc("weft_apiserver_"+name, help, nil, nil), prometheus.CounterValue, read}
	}
	return []metric{
		gauge("certificate_seconds", "How long the server's certificate is good, as it is shown to clients now.",
			func(r *reading) float64 { return r.server }),
		gauge("store_certificate_seconds", "How long the certificate is good by which the store is read.",
			func(r *reading) float64 { return r.client }),
		gauge("stale", "Whether the store is away and its last known state is served.", func(r *reading) float64 { return r.stale }),
		gauge("holding", "Whether the store was lost and its last view is served, or what its successor lacks of it.",
			func(r *reading) float64 { return r.holding }),
		gauge("held_keys", "Keys that the store lost and nobody deleted, served beside those of its successor.",
			func(r *reading) float64 { return r.held }),
		gauge("held_silent_nodes", "Nodes that have not said yet that their keys are there, while any are held.",
			func(r *reading) float64 { return r.silent }),
		gauge("revision", "The newest revision that is known.", func(r *reading) float64 { return r.revision }),
		gauge("keys", "Keys that are served.", func(r *reading) float64 { return r.keys }),
		gauge("bytes", "Bytes of the keys as they are.", func(r *reading) float64 { return r.bytes }),
		gauge("history_bytes", "Bytes of the history.", func(r *reading) float64 { return r.history }),
		gauge("history_revisions", "Revisions of the history that changed something.", func(r *reading) float64 { return r.revisions }),
		gauge("history_seconds", "Age of the oldest of them, since it was seen here.", func(r *reading) float64 { return r.reaches }),
		gauge("streams", "Streams that are open.", func(r *reading) float64 { return r.streams }),
		gauge("watches", "Watches that are open.", func(r *reading) float64 { return r.watches }),
		gauge("large_answer_bytes", "Bytes of large answers that are on their way.", func(r *reading) float64 { return float64(r.s.budget.used.Load()) }),
		counter("events_total", "Events that were sent to watches.", func(r *reading) float64 { return float64(r.s.events.Load()) }),
		counter("encoded_bytes_total", "Bytes of events that were encoded, once for all watches.", func(r *reading) float64 { return r.encoded }),
		counter("unasked_reads_total", "Reads that were answered without the store's word.", func(r *reading) float64 { return r.answered }),
		counter("refused_total", "Requests and connections over a limit.", func(r *reading) float64 { return float64(r.s.refused.Load()) }),
		counter("stuck_total", "Calls that were ended because the client did not read.", func(r *reading) float64 { return float64(r.s.stuck.Load()) }),
	}
}

// Describe lists the metrics.
func (c collector) Describe(to chan<- *prometheus.Desc) {
	for _, m := range metrics() {
		to <- m.desc
	}
}

// Collect reads them.
func (c collector) Collect(to chan<- prometheus.Metric) {
	r := c.s.reading()
	r.server, r.client = math.NaN(), math.NaN()
	if pair, err := c.s.files.own(); err == nil && pair.Leaf != nil {
		r.server = time.Until(pair.Leaf.NotAfter).Seconds()
	}
	if end, err := c.store.CertificateEnd(); err == nil && !end.IsZero() {
		r.client = time.Until(end).Seconds()
	}
	for _, m := range metrics() {
		if v := m.read(&r); !math.IsNaN(v) { // what there is not has no age
			to <- prometheus.MustNewConstMetric(m.desc, m.kind, v)
		}
	}
}

func (s *Server) reading() reading {
	r := reading{s: s, stale: number(s.cache.Stale())}
	st := s.cache.Status()
	r.holding, r.answered = number(!st.Holding.IsZero() || st.Held.Rows > 0), float64(st.Answered)
	r.encoded = float64(s.encoded.Load())
	if r.held = float64(st.Held.Rows); st.Held.Rows > 0 {
		r.silent = float64(st.Held.Silent)
	}
	streams, watches := s.users.totals()
	r.streams, r.watches = float64(streams), float64(watches)
	if gen := s.cache.Generation(); gen != nil {
		st := gen.Store.Stats()
		r.revision, r.keys, r.bytes = float64(st.Revision), float64(st.Keys), float64(st.Bytes)
		r.history, r.revisions = float64(st.HistoryBytes), float64(st.Revisions)
		r.encoded += float64(st.Encoded)
		if !st.Oldest.IsZero() {
			r.reaches = time.Since(st.Oldest).Seconds()
		}
	}
	return r
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
