// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"

	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/service"
	"github.com/weft-net/weft/state"
)

// Tables are the desired state. Their writers mark their sources synced; nothing that an earlier run
// left in the kernel is removed before the tables that could still claim it are synced.
type Tables struct {
	Endpoints *state.Table[uint16, LocalEndpoint] // by slot; written by the agent
	IPs       *state.Table[schema.IPKey, schema.IP]
	Nodes     *state.Table[schema.NodeKey, schema.Node]
	Clusters  *state.Table[string, Cluster] // by name; for conflicts between clusters
	Frontends *state.Table[service.Frontend, service.Service]
}

// validate says that a table is missing.
func (t Tables) validate() error {
	if t.Endpoints == nil || t.IPs == nil || t.Nodes == nil || t.Clusters == nil || t.Frontends == nil {
		return errors.New("a table is missing")
	}
	return nil
}
