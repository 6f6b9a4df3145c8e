// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"maps"
	"net/netip"

	"github.com/weft-net/weft/kvstore/schema"
)

// Export is what our cluster publishes of a service for the others; false where it publishes
// nothing, because the service is not global, not shared, or not there.
//
// Backends are those that are ready or still serve while they terminate: the format has no word for
// the difference, and to withdraw a terminating one would break the flows that others have to it.
func (x *Index) Export(name schema.DefinitionKey) (schema.ClusterService, bool) {
	d, ok := x.definitions[name]
	if !ok || !d.options.Shared {
		return schema.ClusterService{}, false
	}
	s := schema.ClusterService{
		Cluster:         x.cfg.Cluster,
		Namespace:       name.Namespace,
		Name:            name.Name,
		ClusterID:       x.cfg.ClusterID,
		Frontends:       make(map[netip.Addr]map[string]schema.L4),
		Backends:        make(map[netip.Addr]map[string]schema.L4),
		Labels:          maps.Clone(d.row.Labels),
		Selector:        make(map[string]string, len(d.row.Selector)),
		IncludeExternal: true,
		Shared:          true,
	}
	for key, value := range d.row.Selector {
		s.Selector[bareKey(key)] = value // a peer knows no sources here
	}
	for i := range d.ports {
		p := &d.ports[i]
		for _, vip := range d.row.VIPs {
			put(s.Frontends, vip.Unmap(), p, p.Port)
		}
		for f := range p.families {
			for _, b := range p.families[f].local {
				put(s.Backends, b.addr.Addr(), p, b.addr.Port())
			}
		}
	}
	for _, b := range d.row.Backends {
		if _, ok := s.Backends[b.Addr.Unmap()]; ok && b.Hostname != "" {
			if s.Hostnames == nil {
				s.Hostnames = make(map[netip.Addr]string)
			}
			s.Hostnames[b.Addr.Unmap()] = b.Hostname
		}
	}
	return s, true
}

func put(to map[netip.Addr]map[string]schema.L4, addr netip.Addr, p *port, number uint16) {
	if to[addr] == nil {
		to[addr] = make(map[string]schema.L4, 1)
	}
	to[addr][p.Name] = schema.L4{Protocol: p.Protocol, Port: number}
}
