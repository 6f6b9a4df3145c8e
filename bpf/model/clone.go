// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"maps"

	"github.com/weft-net/weft/bpf"
)

// Clone is a node in the same state, which goes its own way from here on.
func (n *Node) Clone() *Node {
	c := *n
	c.Endpoints, c.IPCache, c.Prefixes = maps.Clone(n.Endpoints), maps.Clone(n.IPCache), maps.Clone(n.Prefixes)
	c.Nodes, c.Frontends, c.Backends = maps.Clone(n.Nodes), maps.Clone(n.Frontends), maps.Clone(n.Backends)
	c.Flows, c.Young = cloneFlows(n.Flows), cloneFlows(n.Young)
	c.Counters, c.Events = maps.Clone(n.Counters), nil
	c.fragments, c.devices = maps.Clone(n.fragments), maps.Clone(n.devices)
	c.macs, c.hops = maps.Clone(n.macs), maps.Clone(n.hops)
	return &c
}

func cloneFlows(flows map[bpf.FlowKey]*bpf.Flow) map[bpf.FlowKey]*bpf.Flow {
	out := make(map[bpf.FlowKey]*bpf.Flow, len(flows))
	for k, f := range flows {
		value := *f
		out[k] = &value
	}
	return out
}
