// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"net/netip"

	"github.com/weft-net/weft/agent/endpoint"
	"github.com/weft-net/weft/datapath"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/service"
)

// leftEndpoints are the endpoints that an earlier run left in the kernel; none
// where nothing is pinned. With an error there may be more.
func (a *Agent) leftEndpoints() ([]endpoint.Leftover, error) {
	maps, err := datapath.OpenMaps(a.cfg.BPFFS, a.cfg.Node)
	if errors.Is(err, datapath.ErrNoMaps) {
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

// leftFrontends says of a frontend whether an earlier run left it in the kernel. What
// cannot be read may be there: then it says so of all.
func (a *Agent) leftFrontends() func(service.Frontend) bool {
	left, err := a.readFrontends()
	if err != nil {
		a.log.Warn("services in the kernel cannot be read: all that may have backends elsewhere wait for the other clusters", "error", err)
		return func(service.Frontend) bool { return true }
	}
	return func(f service.Frontend) bool { return left[f] }
}

func (a *Agent) readFrontends() (map[service.Frontend]bool, error) {
	maps, err := datapath.OpenMaps(a.cfg.BPFFS, a.cfg.Node)
	if errors.Is(err, datapath.ErrNoMaps) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer maps.Close()
	left := map[service.Frontend]bool{}
	for row, err := range maps.Services() {
		if err != nil {
			return nil, err
		}
		left[service.Frontend{Addr: row.Frontend, Protocol: schema.Protocol(row.Protocol)}] = true
	}
	return left, nil
}
