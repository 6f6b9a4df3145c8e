// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"slices"

	"github.com/weft-net/weft/kvstore/schema"
)

// Input is all that services are derived from.
type Input struct {
	Definitions map[schema.DefinitionKey]schema.Definition
	// Endpoints are those of our cluster.
	Endpoints map[schema.EndpointKey]schema.Endpoint
	// Remotes are the services of other clusters.
	Remotes map[schema.ServiceKey]schema.ClusterService
}

// Row is one frontend with what stands behind it.
type Row struct {
	Frontend Frontend
	Service  Service
}

// Select derives all frontends of an input at once, sorted. Who follows changes uses Index.
func Select(cfg Config, in Input) []Row {
	x := NewIndex(cfg)
	for k, d := range in.Definitions {
		x.SetDefinition(k, d)
	}
	for k, e := range in.Endpoints {
		x.SetEndpoint(k, e)
	}
	for k, s := range in.Remotes {
		x.SetRemote(k, s)
	}
	changes := x.Flush().Frontends
	rows := make([]Row, 0, len(changes))
	for _, c := range changes {
		rows = append(rows, Row{c.Frontend, c.Service})
	}
	return slices.Clip(rows)
}
