// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"fmt"
	"testing"
	"time"

	"github.com/weft-net/weft/clustermesh"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// node is what an agent of our cluster knows of remotes.
type node struct {
	t      *testing.T
	tables clustermesh.Tables
	mesh   *clustermesh.Mesh
	stop   func()
}

func (s *side) node() *node { return s.nodeWith(nil) }

// nodeWithoutFiles is one that knows remotes by their copies only.
func (s *side) nodeWithoutFiles() *node {
	return s.nodeWith(func(cfg *clustermesh.Config) { cfg.Dir = "" })
}

func (s *side) nodeWith(change func(*clustermesh.Config)) *node {
	s.t.Helper()
	n := &node{t: s.t, tables: clustermesh.Tables{
		Nodes:      state.NewTable[schema.NodeKey]("nodes", schema.Node.Equal),
		IPs:        state.NewTable[schema.IPKey]("ips", state.Equal[schema.IP]),
		Identities: state.NewTable[schema.IdentityKey]("identities", state.Equal[string]),
		Services:   state.NewTable[schema.ServiceKey]("services", schema.ClusterService.Equal),
	}}
	cfg := s.settings("node").mesh()
	cfg.Own, cfg.Follow, cfg.Lineage = kvstoretest.NewClient(s.t, s.ClientConfig()), kvstoretest.WatchConfig(), ""
	if change != nil {
		change(&cfg)
	}
	var err error
	if n.mesh, err = clustermesh.New(cfg, n.tables, nil, kvstoretest.Log(s.t)); err != nil {
		s.t.Fatal(err)
	}
	n.stop = kvstoretest.Go(s.t, n.mesh.Run)
	return n
}

// sees waits until the node has so many addresses of far, from the copy or from far itself.
func (n *node) sees(addresses int, copied bool, phase clustermesh.Phase) {
	n.t.Helper()
	kvstoretest.Eventually(n.t, func() string {
		for _, r := range n.mesh.Status().Remotes {
			if r.Name == "far" && r.Phase == phase && (r.Copy != nil) == copied && n.tables.IPs.Len() == addresses && !r.Hold.Holding {
				return ""
			}
		}
		return fmt.Sprintf("%d addresses, %+v", n.tables.IPs.Len(), n.mesh.Status())
	})
}

// A node reads a remote itself until there is a copy, and then the copy, without a row changing. A node
// that begins while the remote is away knows it by the copy, and so does one whose mirrors are gone.
func TestMirror_NodesReadTheCopy(t *testing.T) {
	t.Parallel()
	s, far := newSide(t), newRemote(t, "far", 2)
	far.fill()
	s.knows("far", far.ClientConfig())
	n := s.node()
	n.sees(4, false, clustermesh.PhaseReady)
	before := n.tables.IPs.Revision()
	_, stop := s.start("one", func(cfg *Config) { cfg.Say = 100 * time.Millisecond })
	n.sees(4, true, clustermesh.PhaseReady)
	if after := n.tables.IPs.Revision(); after != before {
		t.Errorf("the switch changed the addresses: revision %d, was %d", after, before)
	}
	// Changes and deletions come through, several at once.
	far.address(1, 7)
	n.sees(5, true, clustermesh.PhaseReady)
	for _, last := range []string{"5", "6", "7"} {
		far.del(schema.IPsPrefix + "10.2.1." + last)
	}
	n.sees(2, true, clustermesh.PhaseReady)
	far.Kill()
	n.sees(2, true, clustermesh.PhaseAway)
	s.node().sees(2, true, clustermesh.PhaseAway)
	stop()
	late := s.node()
	late.sees(2, true, clustermesh.PhaseAway)
	for _, r := range late.mesh.Status().Remotes {
		if r.Copy.Confirmed.IsZero() || r.Copy.By != "one" {
			t.Errorf("copy %+v", r.Copy)
		}
	}
}
