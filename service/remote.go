// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"
	"slices"

	"github.com/weft-net/weft/kvstore/schema"
)

// takeRemotes computes the remote backends of a port from the rows of all clusters, which come in
// order of precedence: of an address that two of them claim, the first row's stays.
func (p *port) takeRemotes(o Options, remotes []remote) {
	for f := range p.families {
		p.families[f].remote = nil
	}
	if !o.Global {
		return
	}
	for _, r := range remotes {
		if !r.row.Shared {
			continue
		}
		for addr, ports := range r.row.Backends {
			number := p.remotePort(ports)
			if number == 0 {
				continue
			}
			c := p.family(addr)
			c.remote = append(c.remote, Backend{Addr: netip.AddrPortFrom(addr.Unmap(), number), Cluster: r.cluster})
		}
	}
	for f := range p.families {
		c := &p.families[f]
		slices.SortStableFunc(c.remote, compareBackends)
		c.remote = slices.CompactFunc(c.remote, func(a, b Backend) bool { return a.Addr == b.Addr })
	}
}

// remotePort finds the port of a remote backend that answers for this port of ours: the one with
// the same name and protocol. An unnamed port of ours also takes a backend's only port number of the
// protocol, for a service with one port may name it in one cluster and not in another.
func (p *port) remotePort(ports map[string]schema.L4) uint16 {
	if q, ok := ports[p.Name]; ok && q.Protocol == p.Protocol {
		return q.Port
	}
	if p.Name != "" {
		return 0
	}
	var only uint16
	for _, q := range ports {
		if q.Protocol != p.Protocol {
			continue
		}
		if only != 0 && only != q.Port {
			return 0
		}
		only = q.Port
	}
	return only
}
