// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"slices"
	"strings"

	"github.com/weft-net/weft/kvstore/schema"
)

// pair is one label of one namespace, without its source.
type pair struct{ namespace, key, value string }

// posting is what stands under one pair: the endpoints that carry it, and the services that are
// found by it. Both can be left in constant time, because the members know their places.
type posting struct {
	pair      pair
	endpoints []mention
	// services are those whose selector is registered here; each selector is registered under one
	// of its pairs only.
	services []*definition
	// terms counts the selector terms that point here, registered or not.
	terms int
}

// mention is an endpoint in a posting: its place number which is this one.
type mention struct {
	endpoint *endpoint
	which    int
}

// place is a posting that an endpoint stands in, and where.
type place struct {
	posting *posting
	at      int
}

// endpoint is a row of our cluster with its places.
type endpoint struct {
	key    schema.EndpointKey
	row    schema.Endpoint
	places []place
}

// term is one label that a selector asks for.
type term struct {
	posting *posting
	// source is empty where any will do.
	source string
}

// postings is the index of labels that makes a change cost its own matches: an endpoint looks only
// at selectors registered under one of its labels, a selector only at endpoints that carry the
// rarest of its labels.
type postings struct {
	byPair map[pair]*posting
}

func newPostings() *postings { return &postings{byPair: make(map[pair]*posting)} }

func (x *postings) get(p pair) *posting {
	if e, ok := x.byPair[p]; ok {
		return e
	}
	e := &posting{pair: p}
	x.byPair[p] = e
	return e
}

func (x *postings) drop(p *posting) {
	if len(p.endpoints) == 0 && len(p.services) == 0 && p.terms == 0 {
		delete(x.byPair, p.pair)
	}
}

// enter puts an endpoint under each of its labels.
func (x *postings) enter(e *endpoint) {
	e.places = make([]place, 0, len(e.row.Labels))
	ns := namespaceOf(e.row.Namespace)
	for key, value := range e.row.Labels {
		p := x.get(pair{ns, bareKey(key), value})
		if slices.ContainsFunc(e.places, func(o place) bool { return o.posting == p }) {
			continue // the same label from two sources
		}
		p.endpoints = append(p.endpoints, mention{e, len(e.places)})
		e.places = append(e.places, place{p, len(p.endpoints) - 1})
	}
}

// leave is the inverse of enter.
func (x *postings) leave(e *endpoint) {
	for _, at := range e.places {
		p := at.posting
		last := len(p.endpoints) - 1
		moved := p.endpoints[last]
		p.endpoints[at.at] = moved
		moved.endpoint.places[moved.which].at = at.at
		p.endpoints[last] = mention{}
		p.endpoints = p.endpoints[:last]
		x.drop(p)
	}
	e.places = nil
}

// register makes a definition's selector findable.
func (x *postings) register(d *definition) {
	ns := namespaceOf(d.key.Namespace)
	for key, value := range d.row.Selector {
		source, bare, sourced := strings.Cut(key, ":")
		if !sourced {
			source, bare = "", key
		} else if source == "any" {
			source = ""
		}
		p := x.get(pair{ns, bare, value})
		p.terms++
		d.terms = append(d.terms, term{p, source})
	}
	if len(d.terms) == 0 {
		return
	}
	// The home is where the fewest selectors are: what all services of a kind ask for (env=prod)
	// fills up first and is not taken again, so a change of an endpoint does not meet them all.
	home := slices.MinFunc(d.terms, func(a, b term) int {
		if c := len(a.posting.services) - len(b.posting.services); c != 0 {
			return c
		}
		if c := len(a.posting.endpoints) - len(b.posting.endpoints); c != 0 {
			return c
		}
		return strings.Compare(a.posting.pair.key, b.posting.pair.key)
	}).posting
	d.home, d.homeAt = home, len(home.services)
	home.services = append(home.services, d)
}

// unregister is the inverse of register.
func (x *postings) unregister(d *definition) {
	if h := d.home; h != nil {
		last := len(h.services) - 1
		h.services[d.homeAt] = h.services[last]
		h.services[d.homeAt].homeAt = d.homeAt
		h.services[last] = nil
		h.services = h.services[:last]
		d.home = nil
	}
	for _, t := range d.terms {
		t.posting.terms--
		x.drop(t.posting)
	}
	d.terms = nil
}

// servicesOf calls yield for every definition that selects the endpoint.
func (x *postings) servicesOf(e *endpoint, yield func(*definition)) {
	for _, at := range e.places {
		for _, d := range at.posting.services {
			if d.selects(e) {
				yield(d)
			}
		}
	}
}

// endpointsOf calls yield for every endpoint that the definition selects.
func (x *postings) endpointsOf(d *definition, yield func(*endpoint)) {
	if len(d.terms) == 0 {
		return
	}
	rarest := slices.MinFunc(d.terms, func(a, b term) int {
		return len(a.posting.endpoints) - len(b.posting.endpoints)
	}).posting
	for _, m := range rarest.endpoints {
		if d.selects(m.endpoint) {
			yield(m.endpoint)
		}
	}
}

// has tells whether the endpoint carries the label of a term.
func (e *endpoint) has(t term) bool {
	if !slices.ContainsFunc(e.places, func(at place) bool { return at.posting == t.posting }) {
		return false
	}
	if t.source == "" {
		return true
	}
	p := t.posting.pair
	if v, ok := e.row.Labels[t.source+":"+p.key]; ok && v == p.value {
		return true
	}
	v, ok := e.row.Labels[p.key]
	return ok && v == p.value && t.source == defaultSource
}

// defaultSource is that of an endpoint's label key without one.
const defaultSource = "k8s"

// bareKey is a label key without its source.
func bareKey(key string) string {
	if _, bare, ok := strings.Cut(key, ":"); ok {
		return bare
	}
	return key
}

// namespaceOf is the namespace a row is in: where it names none, the one called default.
func namespaceOf(ns string) string {
	if ns == "" {
		return "default"
	}
	return ns
}
