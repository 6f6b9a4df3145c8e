// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"

	"github.com/weft-net/weft/agent/endpoint"
	"github.com/weft-net/weft/datapath"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/service"
)

// leftEndpoints are the endpoints that an earlier run left in the kernel; none
// where nothing is pinned.
func (a *Agent) leftEndpoints() []endpoint.Leftover {
	maps, err := datapath.OpenMaps(a.cfg.BPFFS, a.cfg.Node)
	if err != nil {
		return nil
	}
	defer maps.Close()
	var list []endpoint.Leftover
	for row, err := range maps.Endpoints() {
		if err != nil {
			a.log.Warn("endpoints in the kernel cannot be read", "error", err)
			return list
		}
		l := endpoint.Leftover{ID: endpoint.ID(row.Slot)}
		for _, addr := range []netip.Addr{row.IPv4, row.IPv6} {
			if addr.IsValid() && !addr.IsUnspecified() {
				l.Addresses = append(l.Addresses, addr)
			}
		}
		list = append(list, l)
	}
	return list
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
