// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/kvstore/schema"
)

// collector reads the metrics of a server when they are asked for.
type collector struct{ s *Server }

func (c collector) state() *prometheus.Desc {
	return prometheus.NewDesc("weft_join_peer_state", "The state of a peer: 1 for the one that it has.", []string{"cluster", "state"}, nil)
}

func (c collector) expires() *prometheus.Desc {
	return prometheus.NewDesc("weft_join_certificate_seconds",
		"How long our certificate for a peer is good, and its newest one for us.", []string{"cluster", "of"}, nil)
}

// Describe lists the metrics.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.state()
	ch <- c.expires()
}

// Collect reads them.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	now := time.Now()
	for row := range c.s.peers.All() {
		p := row.Value
		ch <- prometheus.MustNewConstMetric(c.state(), prometheus.GaugeValue, 1, row.Key, PeerState(p))
		if p.State == schema.PeerLeft {
			continue
		}
		left := func(of string, until time.Time) {
			ch <- prometheus.MustNewConstMetric(c.expires(), prometheus.GaugeValue, until.Sub(now).Seconds(), row.Key, of)
		}
		if n := len(p.Issued); n > 0 && !p.Issued[n-1].Revoked {
			left("theirs", p.Issued[n-1].Expires)
		}
		if c.s.settings.MeshDir == "" {
			continue
		}
		if chain, err := trust.ReadCertificates(files{c.s.settings.MeshDir, row.Key}.cert()); err == nil {
			left("ours", chain[0].NotAfter)
		}
	}
}
