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
	broken          prometheus.Counter
	epochs          prometheus.Counter
	restored        prometheus.Counter
	conflicts       prometheus.Counter
	copied          prometheus.Gauge
	held            prometheus.Gauge
	defragged       prometheus.Gauge
	gone            prometheus.Counter
	copyErrors      prometheus.Counter
	holding         prometheus.Gauge
	stuck           prometheus.Gauge
	silent          prometheus.Gauge
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
		broken: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weft_operator_lineage_breaks_total", Help: "Times the store was found not to be the one it was.",
		}),
		epochs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weft_operator_epochs_written_total", Help: "Epochs written by this operator.",
		}),
		restored: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weft_operator_rows_restored_total", Help: "Rows of the cluster put back into a store that lost them.",
		}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weft_operator_restore_conflicts_total", Help: "Services not put back because another one has their address.",
		}),
		copied: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "weft_operator_copied_rows", Help: "Rows in the last good copy of the cluster's own rows.",
		}),
		held: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "weft_operator_held_rows", Help: "Rows of the copy that the store lacks and nobody deleted.",
		}),
		defragged: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "weft_operator_defragmentation_timestamp_seconds", Help: "When a member was last defragmented by this operator, Unix time.",
		}),
		copyErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weft_operator_copy_errors_total", Help: "Times the last good copy could not be written to disk.",
		}),
		holding: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "weft_operator_holding", Help: "1 while nothing is pruned or collected because the store may have lost rows.",
		}),
		stuck: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "weft_operator_hold_stuck", Help: "1 while too many nodes are silent for the hold to end by itself.",
		}),
		silent: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "weft_operator_hold_silent_nodes", Help: "Nodes whose word the hold waits for.",
		}),
		gone: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weft_operator_gone_rows_removed_total", Help: "Rows of nodes that are gone for good that were removed, and stale locks.",
		}),
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.leader, m.heartbeat, m.heartbeatErrors, m.compacted, m.broken, m.epochs, m.restored, m.conflicts,
		m.copied, m.held, m.defragged, m.gone, m.copyErrors,
		m.holding, m.stuck, m.silent,
	} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

// show shows a hold, or that there is none.
func (m *metrics) show(holding, stuck bool, silent int) {
	m.holding.Set(oneIf(holding))
	m.stuck.Set(oneIf(stuck))
	m.silent.Set(float64(silent))
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
