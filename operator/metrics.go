// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	leader          prometheus.Gauge
	heartbeat       prometheus.Gauge
	heartbeatErrors prometheus.Counter
	compacted       prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "weft_operator_leader", Help: "1 while this operator does the cluster's work.",
		}),
		heartbeat: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "weft_operator_heartbeat_timestamp_seconds", Help: "When the last heartbeat was written, Unix time.",
		}),
		heartbeatErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weft_operator_heartbeat_errors_total", Help: "Heartbeats that could not be written.",
		}),
		compacted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weft_operator_compactions_total", Help: "Compactions of the store by this operator.",
		}),
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.leader, m.heartbeat, m.heartbeatErrors, m.compacted} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}
