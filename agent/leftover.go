// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"strings"

	"github.com/weft-net/weft/agent/endpoint"
	"github.com/weft-net/weft/datapath"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/service"
)

// leftEndpoints are the endpoints that an earlier run left in the kernel; none
// where nothing is pinned. With an error there may be more.
func (a *Agent) leftEndpoints() ([]endpoint.Leftover, error) {
	maps, err := datapath.OpenMaps(a.cfg.BPFFS, a.cfg.Node)
	if err != nil && nothingPinned(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer maps.Close()
	var list []endpoint.Leftover
	for row, err := range maps.Endpoints() {
		if err != nil {
			return list, err
		}
		l := endpoint.Leftover{ID: endpoint.ID(row.Slot)}
		for _, addr := range []netip.Addr{row.IPv4, row.IPv6} {
			if addr.IsValid() && !addr.IsUnspecified() {
				l.Addresses = append(l.Addresses, addr)
			}
		}
		list = append(list, l)
	}
	return list, nil
}

// nothingPinned says that OpenMaps found no maps, as on a node's first start. The
// datapath exports no error for that; were its text another one, a first start
// would prune nothing, which is the harmless way to be wrong.
func nothingPinned(err error) bool {
	return strings.Contains(err.Error(), ": no maps are pinned below ")
}

// leftFrontends are the frontends that an earlier run left in the kernel.
func (a *Agent) leftFrontends() map[service.Frontend]bool {
	maps, err := datapath.OpenMaps(a.cfg.BPFFS, a.cfg.Node)
	if err != nil {
		return nil
	}
	defer maps.Close()
	left := map[service.Frontend]bool{}
	for row, err := range maps.Services() {
		if err != nil {
			a.log.Warn("services in the kernel cannot be read", "error", err)
			return left
		}
		left[service.Frontend{Addr: row.Frontend, Protocol: schema.Protocol(row.Protocol)}] = true
	}
	return left
}
