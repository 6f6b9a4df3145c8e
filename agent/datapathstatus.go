// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/datapath"
)

// datapathLines judges the kernel side.
func (a *Agent) datapathLines() []*api.StatusLine {
	var lines []*api.StatusLine
	for _, l := range a.datapath.Status() {
		if l.Name != "datapath" {
			l.Name = "datapath " + l.Name // there are endpoints and services of the agent too
		}
		lines = append(lines, &api.StatusLine{
			Component: l.Name, Health: healthOf(l.State), Summary: l.Text, Reason: l.Reason, Hint: l.Do,
		})
	}
	return lines
}

func healthOf(h datapath.Health) api.Health {
	switch h {
	case datapath.OK:
		return api.Health_HEALTH_OK
	case datapath.Warn:
		return api.Health_HEALTH_WARNING
	case datapath.Off:
		return api.Health_HEALTH_OFF
	}
	return api.Health_HEALTH_FAILED
}
