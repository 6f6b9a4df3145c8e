// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"
	"slices"

	"github.com/weft-net/weft/kvstore/schema"
)

// Info is what people are told about a service.
type Info struct {
	Options Options
	// Frontends are those that clients reach it by, sorted.
	Frontends []Frontend
	// Active and Terminating count the backends of our cluster: an endpoint is one, however many
	// ports and families it has, and so is an address that the definition lists.
	Active, Terminating int
	// Remotes are the other clusters that have a service of this name, whether its backends are
	// used or not, by cluster id.
	Remotes []RemoteInfo
	// Problems is what was not taken as written.
	Problems []Problem
}

// RemoteInfo is a service of the same name in another cluster.
type RemoteInfo struct {
	Cluster string
	Shared  bool
	// Backends counts addresses.
	Backends int
}

// Info tells about a service of our cluster, as of the last change; false where there is none.
func (x *Index) Info(name schema.DefinitionKey) (Info, bool) {
	d, ok := x.definitions[name]
	if !ok {
		return Info{}, false
	}
	in := Info{Options: d.options, Problems: append(slices.Clone(d.problems), x.claimProblems(d)...)}
	for _, f := range d.claimed {
		if fe := x.frontends[f]; fe != nil && fe.claims[0] == d {
			in.Frontends = append(in.Frontends, f)
		}
	}
	in.Active, in.Terminating = d.count()
	for _, r := range x.remotes[name] {
		in.Remotes = append(in.Remotes, RemoteInfo{r.cluster, r.row.Shared, len(r.row.Backends)})
	}
	return in, true
}

// holder is who offers a backend: an endpoint, or an address that the definition lists.
type holder struct {
	owner *endpoint
	addr  netip.Addr // without an owner
}

// count counts the backends of our cluster, each once. An address that stands in two endpoint rows
// while it moves is that of the first.
func (d *definition) count() (active, terminating int) {
	states := make(map[holder]State)
	for i := range d.ports {
		for f := range d.ports[i].families {
			local := d.ports[i].families[f].local
			for len(local) > 0 {
				first := local[0]
				h, best := holder{owner: first.owner}, first.state
				if first.owner == nil {
					h.addr = first.addr.Addr()
				}
				for len(local) > 0 && local[0].addr == first.addr {
					best = min(best, local[0].state)
					local = local[1:]
				}
				if have, ok := states[h]; ok {
					best = min(best, have)
				}
				states[h] = best
			}
		}
	}
	for _, s := range states {
		if s == Active {
			active++
		} else {
			terminating++
		}
	}
	return active, terminating
}
