// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weft-net/weft/bpf"
)

// collector gives Prometheus what the maps count. It keeps no number of its own.
type collector struct{ d *Datapath }

// Describe implements prometheus.Collector: it describes nothing, because which series there are is
// known only when they are read.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector. Before the datapath is ready there is nothing.
func (c collector) Collect(out chan<- prometheus.Metric) {
	e, done, ok := c.d.use()
	if !ok {
		return
	}
	defer done()
	gauge := func(name, help string, value float64, labels ...string) {
		send(out, prometheus.GaugeValue, name, help, value, labels)
	}
	counter := func(name, help string, value float64, labels ...string) {
		send(out, prometheus.CounterValue, name, help, value, labels)
	}
	totals, err := readCounters(e.objects.Counters)
	if err == nil {
		for _, t := range totals {
			counter("packets_total", "Packets by what became of them and by direction; reason none: passed on.",
				float64(t.Packets), "reason", t.Reason.String(), "direction", t.Direction)
			counter("bytes_total", "Bytes of the same packets, from the IP header on.",
				float64(t.Bytes), "reason", t.Reason.String(), "direction", t.Direction)
		}
	}
	if lost, err := readLost(e.objects.EventsLost); err == nil {
		counter("events_lost_total", "Flow events that found the ring full.", float64(lost))
	}
	for name, size := range map[string]struct {
		used float64
		m    *ebpf.Map
	}{
		"flows":       {float64(e.flows.entries.Load()), e.objects.Flows},
		"flows_young": {float64(e.flows.youngEntries.Load()), e.objects.FlowsYoung},
		"nodes":       {float64(e.nodes.len()), e.objects.Nodes},
		"ipcache":     {float64(c.d.ipcache.Len()), e.objects.Ipcache},
		"frontends":   {float64(c.d.tables.Frontends.Len()), e.objects.Frontends},
		"endpoints":   {float64(c.d.tables.Endpoints.Len()), e.objects.Endpoints},
	} {
		gauge("map_entries", "Rows in a map, as of the last sweep or of the table it is made from.", size.used, "map", name)
		gauge("map_max_entries", "Rows that a map can hold.", float64(size.m.MaxEntries()), "map", name)
	}
	pressure := 0.0
	if e.flows.pressure.Load() {
		pressure = 1
	}
	gauge("flows_pressure", "1 while new flows begin in the map that evicts.", pressure)
	e.sockets.collect(gauge, counter)
	counter("flows_removed_total", "Flow entries that sweeps removed.", float64(e.flows.removed.Load()))
	for _, s := range e.reconcilers() {
		gauge("rows_failed", "Rows whose last attempt to write them failed.", float64(s.Failed), "map", s.Name)
	}
}

// send gives one sample; labels are names and values in turn.
func send(out chan<- prometheus.Metric, kind prometheus.ValueType, name, help string, value float64, labels []string) {
	var names, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	desc := prometheus.NewDesc(prometheus.BuildFQName("weft", "datapath", name), help, names, nil)
	m, err := prometheus.NewConstMetric(desc, kind, value, values...)
	if err != nil {
		m = prometheus.NewInvalidMetric(desc, err)
	}
	out <- m
}

// CounterTotal is how many packets met one end, over all processors.
type CounterTotal struct {
	Reason    bpf.DropReason // DropNone: passed on
	Direction string         // egress or ingress, as seen from endpoints
	Packets   uint64
	Bytes     uint64
}

// readCounters sums the counters map; totals that are zero are left out.
func readCounters(m *ebpf.Map) ([]CounterTotal, error) {
	var totals []CounterTotal
	for i := range m.MaxEntries() {
		var perCPU []bpf.Counter
		if err := m.Lookup(i, &perCPU); err != nil {
			return nil, bpf.WriteError("counters", m, err)
		}
		t := CounterTotal{
			Reason:    bpf.DropReason(i / uint32(bpf.Directions)),
			Direction: directionName(uint8(i % uint32(bpf.Directions))),
		}
		for _, c := range perCPU {
			t.Packets += c.Packets
			t.Bytes += c.Bytes
		}
		if t.Packets != 0 {
			totals = append(totals, t)
		}
	}
	return totals, nil
}

func directionName(d uint8) string {
	switch d {
	case bpf.Egress:
		return "egress"
	case bpf.Ingress:
		return "ingress"
	}
	return strconv.Itoa(int(d))
}

// readLost sums the events that were lost.
func readLost(m *ebpf.Map) (uint64, error) {
	var perCPU []uint64
	if err := m.Lookup(uint32(0), &perCPU); err != nil {
		return 0, bpf.WriteError("events_lost", m, err)
	}
	var n uint64
	for _, c := range perCPU {
		n += c
	}
	return n, nil
}
