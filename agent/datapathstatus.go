// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import "github.com/weft-net/weft/agent/api"

// datapathLines judges the kernel side.
func (a *Agent) datapathLines() []*api.StatusLine {
	select {
	case <-a.datapath.Ready():
	default:
		return []*api.StatusLine{fail(ok("datapath", "starting"), "programs are not attached yet", "wait, or see the agent's log")}
	}
	return []*api.StatusLine{ok("datapath", "programs attached, mode %s", a.cfg.Mode)}
}
