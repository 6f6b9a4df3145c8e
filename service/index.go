// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/weft-net/weft/kvstore/schema"
)

// Config says who we are.
type Config struct {
	// Cluster and ClusterID are those of our cluster.
	Cluster   string
	ClusterID uint32
}

// Index derives frontends from definitions, endpoints and the services of other clusters. It is fed
// single changes; Flush says what they came to. Labels are indexed, so a change costs the services
// that it matches and their backends, whatever else is loaded. It must be used by one goroutine at
// a time. What it is given and what it returns is shared and must not be changed.
type Index struct {
	cfg         Config
	labels      *postings
	definitions map[schema.DefinitionKey]*definition
	endpoints   map[schema.EndpointKey]*endpoint
	remotes     map[schema.DefinitionKey][]remote
	frontends   map[Frontend]*frontend
	// dirty are the definitions to be computed in the next flush, gone the frontends of those that
	// were replaced or deleted, touched all names whose Info or Export may be another.
	dirty   []*definition
	gone    map[Frontend]struct{}
	touched map[schema.DefinitionKey]struct{}
	// before and after are scratch of SetEndpoint, order of Flush.
	before, after []localBackend
	order         []Frontend
}

// remote is a service of another cluster under the name of ours.
type remote struct {
	cluster string
	row     schema.ClusterService
}

// frontend is who asks for one address, port and protocol, and what was last told of it.
type frontend struct {
	// claims are sorted by name; the first has it.
	claims []*definition
	told   Service
	known  bool
}

// Changes is what a Flush found.
type Changes struct {
	// Frontends are sorted.
	Frontends []Change
	// Services are the names for which Info and Export may give something else than before the
	// flush, sorted.
	Services []schema.DefinitionKey
}

// NewIndex returns an empty index.
func NewIndex(cfg Config) *Index {
	return &Index{
		cfg:         cfg,
		labels:      newPostings(),
		definitions: make(map[schema.DefinitionKey]*definition),
		endpoints:   make(map[schema.EndpointKey]*endpoint),
		remotes:     make(map[schema.DefinitionKey][]remote),
		frontends:   make(map[Frontend]*frontend),
		gone:        make(map[Frontend]struct{}),
		touched:     make(map[schema.DefinitionKey]struct{}),
	}
}

// SetDefinition adds or replaces a service of our cluster.
func (x *Index) SetDefinition(key schema.DefinitionKey, row schema.Definition) {
	if old, ok := x.definitions[key]; ok {
		if old.row.Equal(row) {
			return
		}
		x.forget(old)
	}
	d := newDefinition(key, row)
	x.definitions[key] = d
	x.labels.register(d)
	var given []localBackend
	x.labels.endpointsOf(d, func(e *endpoint) {
		for i := range d.ports {
			p := &d.ports[i]
			given = p.contributions(e, given[:0])
			for _, b := range given {
				c := p.family(b.addr.Addr())
				c.local = append(c.local, b)
			}
		}
	})
	for i := range d.ports {
		for f := range d.ports[i].families {
			slices.SortFunc(d.ports[i].families[f].local, localBackend.compare)
		}
	}
	for _, f := range d.claimed {
		fe := x.frontends[f]
		if fe == nil {
			fe = &frontend{}
			x.frontends[f] = fe
		}
		at, _ := slices.BinarySearchFunc(fe.claims, d, compareDefinitions)
		fe.claims = slices.Insert(fe.claims, at, d)
	}
	x.mark(d)
}

// DeleteDefinition removes a service of our cluster.
func (x *Index) DeleteDefinition(key schema.DefinitionKey) {
	if d, ok := x.definitions[key]; ok {
		x.forget(d)
		delete(x.definitions, key)
	}
}

func (x *Index) forget(d *definition) {
	x.labels.unregister(d)
	for _, f := range d.claimed {
		fe := x.frontends[f]
		if at, ok := slices.BinarySearchFunc(fe.claims, d, compareDefinitions); ok {
			fe.claims = slices.Delete(fe.claims, at, at+1)
		}
		x.gone[f] = struct{}{}
	}
	if d.dirty { // it stays in the list, and is skipped there
		d.dirty = false
	}
	x.touched[d.key] = struct{}{}
}

// SetEndpoint adds or replaces an endpoint of our cluster.
func (x *Index) SetEndpoint(key schema.EndpointKey, row schema.Endpoint) {
	old := x.endpoints[key]
	if old != nil && sameForServices(old.row, row) {
		old.row = row
		return
	}
	e := old
	if old != nil && maps.Equal(old.row.Labels, row.Labels) && old.row.Namespace == row.Namespace {
		// The same services before and after: only what it gives them is another.
		x.labels.servicesOf(e, func(d *definition) {
			now := endpoint{key: key, row: row}
			for i := range d.ports {
				p := &d.ports[i]
				x.before = p.contributions(e, x.before[:0])
				x.after = p.contributions(&now, x.after[:0])
				for i := range x.after {
					x.after[i].owner = e
				}
				if slices.Equal(x.before, x.after) {
					continue
				}
				for _, b := range x.before {
					p.family(b.addr.Addr()).remove(b)
				}
				for _, b := range x.after {
					p.family(b.addr.Addr()).insert(b)
				}
				x.mark(d)
			}
		})
		e.row = row
		return
	}
	if old != nil {
		x.withdraw(old)
	}
	e = &endpoint{key: key, row: row}
	x.endpoints[key] = e
	x.labels.enter(e)
	x.labels.servicesOf(e, func(d *definition) {
		for i := range d.ports {
			p := &d.ports[i]
			x.after = p.contributions(e, x.after[:0])
			for _, b := range x.after {
				p.family(b.addr.Addr()).insert(b)
				x.mark(d)
			}
		}
	})
}

// DeleteEndpoint removes an endpoint of our cluster.
func (x *Index) DeleteEndpoint(key schema.EndpointKey) {
	if e, ok := x.endpoints[key]; ok {
		x.withdraw(e)
		delete(x.endpoints, key)
	}
}

func (x *Index) withdraw(e *endpoint) {
	x.labels.servicesOf(e, func(d *definition) {
		for i := range d.ports {
			p := &d.ports[i]
			x.before = p.contributions(e, x.before[:0])
			for _, b := range x.before {
				p.family(b.addr.Addr()).remove(b)
				x.mark(d)
			}
		}
	})
	x.labels.leave(e)
}

// sameForServices tells whether two rows of an endpoint give services the same.
func sameForServices(a, b schema.Endpoint) bool {
	return a.State == b.State && slices.Equal(a.Addresses, b.Addresses) && a.Namespace == b.Namespace &&
		slices.Equal(a.NamedPorts, b.NamedPorts) && maps.Equal(a.Labels, b.Labels)
}

// SetRemote adds or replaces a service of another cluster. Rows that bear our own name are ignored.
func (x *Index) SetRemote(key schema.ServiceKey, row schema.ClusterService) {
	if key.Cluster == x.cfg.Cluster {
		return
	}
	name := schema.DefinitionKey{Namespace: key.Namespace, Name: key.Name}
	list := x.remotes[name]
	r := remote{key.Cluster, row}
	if i := slices.IndexFunc(list, func(o remote) bool { return o.cluster == key.Cluster }); i >= 0 {
		if list[i].row.Equal(row) {
			return
		}
		list[i] = r
	} else {
		list = append(list, r)
	}
	// The lower id wins an address that two clusters claim, on every node alike.
	slices.SortFunc(list, func(a, b remote) int {
		return cmp.Or(cmp.Compare(a.row.ClusterID, b.row.ClusterID), cmp.Compare(a.cluster, b.cluster))
	})
	x.remotes[name] = list
	x.markRemote(name)
}

// DeleteRemote removes a service of another cluster.
func (x *Index) DeleteRemote(key schema.ServiceKey) {
	name := schema.DefinitionKey{Namespace: key.Namespace, Name: key.Name}
	list := x.remotes[name]
	i := slices.IndexFunc(list, func(o remote) bool { return o.cluster == key.Cluster })
	if i < 0 {
		return
	}
	if list = slices.Delete(list, i, i+1); len(list) == 0 {
		delete(x.remotes, name)
	} else {
		x.remotes[name] = list
	}
	x.markRemote(name)
}

func (x *Index) markRemote(name schema.DefinitionKey) {
	if d, ok := x.definitions[name]; ok && d.options.Global {
		d.remoteStale = true
		x.mark(d)
	}
}

func (x *Index) mark(d *definition) {
	if !d.dirty {
		d.dirty = true
		x.dirty = append(x.dirty, d)
	}
}

// Flush computes what the changes since the last Flush came to.
func (x *Index) Flush() Changes {
	look := x.gone
	for _, d := range x.dirty {
		if !d.dirty {
			continue // replaced since
		}
		d.dirty = false
		x.touched[d.key] = struct{}{}
		d.compute(x.cfg.Cluster, x.remotes[d.key])
		for _, f := range d.claimed {
			look[f] = struct{}{}
		}
	}
	x.dirty = x.dirty[:0]
	var out Changes
	order := x.order[:0]
	for f := range look {
		order = append(order, f)
	}
	slices.SortFunc(order, Frontend.Compare)
	x.order = order[:0]
	for _, f := range order {
		fe := x.frontends[f]
		if fe == nil {
			continue
		}
		if len(fe.claims) == 0 {
			if fe.known {
				out.Frontends = append(out.Frontends, Change{f, fe.told, true})
			}
			delete(x.frontends, f)
			continue
		}
		for _, d := range fe.claims {
			x.touched[d.key] = struct{}{} // who else claims it is a problem that Info tells
		}
		now := fe.claims[0].service(f)
		if fe.known && fe.told.Equal(now) {
			continue
		}
		fe.told, fe.known = now, true
		out.Frontends = append(out.Frontends, Change{f, now, false})
	}
	x.gone = emptied(x.gone)
	out.Services = slices.SortedFunc(maps.Keys(x.touched), compareNames)
	x.touched = emptied(x.touched)
	return out
}

// emptied clears a set, or replaces it where it was large: to clear a map costs what it once held,
// and every flush after the first would pay for the start.
func emptied[K comparable](set map[K]struct{}) map[K]struct{} {
	if len(set) > 256 {
		return make(map[K]struct{})
	}
	clear(set)
	return set
}

// compute brings the services of all ports up to date.
func (d *definition) compute(cluster string, remotes []remote) {
	for i := range d.ports {
		p := &d.ports[i]
		if d.remoteStale {
			p.takeRemotes(d.options, remotes)
		}
		for f := range p.families {
			c := &p.families[f]
			s := Service{Name: d.key, Port: p.Name, Global: d.options.Global, Affinity: d.options.Affinity}
			s.Backends, s.Chosen = choose(cluster, d.options, c)
			c.service = s
		}
	}
	d.remoteStale = false
}

// service is the row of one of the frontends that the definition claims.
func (d *definition) service(f Frontend) Service {
	for i := range d.ports {
		if p := &d.ports[i]; p.Port == f.Addr.Port() && p.Protocol == f.Protocol && !p.repeats {
			return p.family(f.Addr.Addr()).service
		}
	}
	return Service{Name: d.key}
}

func compareDefinitions(a, b *definition) int { return compareNames(a.key, b.key) }

func compareNames(a, b schema.DefinitionKey) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// claimProblems tells which frontends another service has.
func (x *Index) claimProblems(d *definition) []Problem {
	var out []Problem
	for _, f := range d.claimed {
		if fe := x.frontends[f]; fe != nil && len(fe.claims) > 0 && fe.claims[0] != d {
			out = append(out, Problem{"vips", fmt.Sprintf("%s belongs to service %s: give this one another address", f, fe.claims[0].key)})
		}
	}
	return out
}
