// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/kvstore/schema"
)

// definition is a service of our cluster with what is behind it.
type definition struct {
	key      schema.DefinitionKey
	row      schema.Definition
	options  Options
	problems []Problem

	terms  []term
	home   *posting
	homeAt int

	ports []port
	// claimed are the frontends it asks for, sorted.
	claimed []Frontend
	dirty   bool
	// remoteStale: the remote lists of the ports have to be computed again.
	remoteStale bool
}

// port is one port of a definition, with its backends by family.
type port struct {
	schema.ServicePort
	families [2]candidates
	// repeats is set on a port whose protocol and number an earlier port has; it has no frontend.
	repeats bool
}

// candidates are the backends of one port in one family.
type candidates struct {
	// local is sorted by address, then by owner; one address may stand in two endpoint rows while
	// it moves from one to the other.
	local []localBackend
	// remote is sorted by address, without duplicates.
	remote []Backend
	// service is the row as of the last flush.
	service Service
}

// localBackend is what one endpoint (or the definition itself, owner nil) offers.
type localBackend struct {
	addr  netip.AddrPort
	state State
	owner *endpoint
}

func (b localBackend) compare(o localBackend) int {
	if c := b.addr.Compare(o.addr); c != 0 {
		return c
	}
	switch {
	case b.owner == o.owner:
		return 0
	case b.owner == nil:
		return -1
	case o.owner == nil:
		return 1
	}
	return compareEndpointKeys(b.owner.key, o.owner.key)
}

func compareEndpointKeys(a, b schema.EndpointKey) int {
	return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Node, b.Node), cmp.Compare(a.ID, b.ID))
}

func newDefinition(key schema.DefinitionKey, row schema.Definition) *definition {
	d := &definition{key: key, row: row, remoteStale: true}
	d.options, d.problems = ParseOptions(row.Annotations)
	for i, p := range row.Ports {
		p.Protocol = protocolOf(p.Protocol)
		q := port{ServicePort: p}
		if p.Protocol != schema.TCP && p.Protocol != schema.UDP && p.Protocol != schema.SCTP {
			d.problems = append(d.problems, Problem{fmt.Sprintf("ports[%d].protocol", i),
				fmt.Sprintf("number %d is not known and the port is left out: write TCP, UDP or SCTP", uint8(p.Protocol))})
			continue
		}
		for _, o := range d.ports {
			if o.Port == p.Port && o.Protocol == p.Protocol {
				q.repeats = true
				d.problems = append(d.problems, Problem{fmt.Sprintf("ports[%d].port", i),
					fmt.Sprintf("%d/%s is already the port %q, which clients reach: give it another number", p.Port, p.Protocol, o.Name)})
				break
			}
		}
		d.ports = append(d.ports, q)
	}
	for _, b := range row.Backends {
		d.offer(b)
	}
	for _, a := range row.VIPs {
		for _, p := range d.ports {
			if !p.repeats {
				d.claimed = append(d.claimed, Frontend{netip.AddrPortFrom(a.Unmap(), p.Port), p.Protocol})
			}
		}
	}
	slices.SortFunc(d.claimed, Frontend.Compare)
	d.claimed = slices.Compact(d.claimed)
	return d
}

// offer enters an explicit backend under every port of the definition.
func (d *definition) offer(b schema.Backend) {
	state, ok := stateOf(b.State)
	if !ok {
		return
	}
	for i := range d.ports {
		p := &d.ports[i]
		number, ok := b.Ports[p.Name]
		if !ok {
			number = p.target(nil)
		}
		if number == 0 {
			d.problems = append(d.problems, Problem{"backends[" + b.Addr.String() + "].ports",
				fmt.Sprintf("the port %q asks for a named port and the backend does not number it: add it, or give the port a targetPort number", p.Name)})
			continue
		}
		p.family(b.Addr).insert(localBackend{addr: netip.AddrPortFrom(b.Addr.Unmap(), number), state: state})
	}
}

// stateOf is what an endpoint's state makes of its backend; false where it is none.
func stateOf(s schema.EndpointState) (State, bool) {
	switch s {
	case schema.EndpointReady:
		return Active, true
	case schema.EndpointTerminating:
		return Terminating, true
	}
	return 0, false
}

// contributions appends what an endpoint gives to each port: at most one backend for each family.
func (p *port) contributions(e *endpoint, to []localBackend) []localBackend {
	state, ok := stateOf(e.row.State)
	if !ok {
		return to
	}
	number := p.target(e.row.NamedPorts)
	if number == 0 {
		return to
	}
	for _, a := range e.row.Addresses {
		to = append(to, localBackend{netip.AddrPortFrom(a.Unmap(), number), state, e})
	}
	return to
}

// target is the port number of a backend with these named ports, or 0 if it does not have the one
// that the service asks for.
func (p *port) target(named []schema.NamedPort) uint16 {
	if p.TargetName != "" {
		for _, n := range named {
			if n.Name == p.TargetName && protocolOf(n.Protocol) == p.Protocol {
				return n.Port
			}
		}
		return 0
	}
	if p.TargetPort != 0 {
		return p.TargetPort
	}
	return p.Port
}

func (p *port) family(a netip.Addr) *candidates {
	if a.Is4() || a.Is4In6() {
		return &p.families[0]
	}
	return &p.families[1]
}

func (c *candidates) insert(b localBackend) {
	i, found := slices.BinarySearchFunc(c.local, b, localBackend.compare)
	if found {
		c.local[i] = b
		return
	}
	c.local = slices.Insert(c.local, i, b)
}

func (c *candidates) remove(b localBackend) {
	if i, found := slices.BinarySearchFunc(c.local, b, localBackend.compare); found {
		c.local = slices.Delete(c.local, i, i+1)
	}
}

// selects tells whether the selector asks for nothing that the endpoint has not.
func (d *definition) selects(e *endpoint) bool {
	for _, t := range d.terms {
		if !e.has(t) {
			return false
		}
	}
	return len(d.terms) > 0
}

// protocolOf is the protocol one of our own rows means: TCP where it names none.
func protocolOf(p schema.Protocol) schema.Protocol {
	if p == schema.AnyProtocol {
		return schema.TCP
	}
	return p
}
