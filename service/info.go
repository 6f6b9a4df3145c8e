// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"slices"

	"github.com/weft-net/weft/kvstore/schema"
)

// Info is what people are told about a service.
type Info struct {
	Options Options
	// Frontends are those that clients reach it by, sorted.
	Frontends []Frontend
	// Active and Terminating count the backends of our cluster; one endpoint with two ports or two
	// families counts for each.
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
	for i := range d.ports {
		for f := range d.ports[i].families {
			merge("", d.ports[i].families[f].local, nil, func(b Backend, _ bool) {
				if b.State == Active {
					in.Active++
				} else {
					in.Terminating++
				}
			})
		}
	}
	for _, r := range x.remotes[name] {
		in.Remotes = append(in.Remotes, RemoteInfo{r.cluster, r.row.Shared, len(r.row.Backends)})
	}
	return in, true
}
