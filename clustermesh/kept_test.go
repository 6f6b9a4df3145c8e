// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"iter"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// memory is what an earlier run kept of the remote far.
type memory struct {
	id     uint32
	tables func() Tables

	mu    sync.Mutex
	asked map[schema.Resource]int
}

func (m *memory) Clusters() []string { return []string{"far"} }

func (m *memory) ID(cluster string) uint32 {
	if cluster != "far" {
		return 0
	}
	return m.id
}

func (m *memory) Restore(cluster string, r schema.Resource) int {
	m.mu.Lock()
	m.asked[r]++
	m.mu.Unlock()
	src, t := SourceOf(cluster), m.tables()
	switch r {
	case schema.ResourceNodes:
		t.Nodes.Put(src, 1, schema.NodeKey{Cluster: cluster, Name: "old"}, schema.Node{Name: "old", Cluster: cluster, ClusterID: m.id})
	case schema.ResourceIPs:
		t.IPs.Put(src, 1, schema.IPKey{Cluster: cluster, Prefix: netip.MustParsePrefix("10.2.0.77/32")}, schema.IP{ID: 6})
	case schema.ResourceIdentities:
		t.Identities.Put(src, 1, schema.IdentityKey{Cluster: cluster, ID: m.id<<16 + 77}, "k8s:old=;")
	case schema.ResourceServices:
		t.Services.Put(src, 1, schema.ServiceKey{Cluster: cluster, Namespace: "d", Name: "old"}, schema.ClusterService{})
	}
	return 1
}

func (m *memory) Rows(string, schema.Resource) (iter.Seq[kvstore.KV], time.Time) {
	return nil, time.Time{}
}

func (m *memory) Listed(string, schema.Resource, bool) {}

func (m *memory) times(r schema.Resource) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked[r]
}

// newMemory is a mesh whose earlier run knew far by that id and left its rows.
func newMemory(t *testing.T, id uint32, edits ...func(*Config)) (*bench, *memory) {
	t.Helper()
	m := &memory{id: id, asked: map[schema.Resource]int{}}
	ready := make(chan struct{})
	var b *bench
	m.tables = func() Tables {
		<-ready
		return b.tables
	}
	b = newBench(t, func(c *Config) {
		c.Kept = m
		for _, edit := range edits {
			edit(c)
		}
	})
	close(ready)
	return b, m
}

func TestMesh_RemoteAwayAtTheStartIsServedFromWhatWasKept(t *testing.T) {
	c := newCluster(t, "far", 2)
	c.fill(2)
	b, m := newMemory(t, 2)
	b.add("far", kvstore.Config{Endpoints: []string{"http://127.0.0.1:1"}})
	b.phase("far", PhaseConnecting, "unreachable")
	b.wantRows("far", one)
	if st := b.remote("far"); st.ID != 2 {
		t.Errorf("id %d", st.ID)
	}
	b.always("unsynced on what was kept alone", func() bool { return !b.tables.IPs.Synced() })
	// The remote itself has other rows. Nobody knows whether it is the store that had what was kept,
	// so that is held, and let go as what is held is.
	b.add("far", c.ClientConfig())
	b.phase("far", PhaseReady, "")
	b.held("far", 4)
	b.wantRows("far", [4]int{2, 2, 2, 2})
	if _, _, err := b.mesh.Guards()["far"].Adopt(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	b.wantRows("far", one)
	if _, stays := b.tables.Nodes.Get(schema.NodeKey{Cluster: "far", Name: "old"}); stays {
		t.Error("a row that was kept is still there")
	}
	if n := m.times(schema.ResourceNodes); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// Also when another one was tried more than once before.
func TestMesh_SecondRemoteAwayIsServedFromWhatWasKept(t *testing.T) {
	b, m := newMemory(t, 2)
	nowhere := kvstore.Config{Endpoints: []string{"http://127.0.0.1:1"}}
	b.add("near", nowhere)
	b.phase("near", PhaseConnecting, "unreachable")
	first := b.remote("near").LastErrorAt
	kvstoretest.Eventually(t, func() string {
		if b.remote("near").LastErrorAt.Equal(first) {
			return "near was tried once"
		}
		return ""
	})
	b.add("far", nowhere)
	b.phase("far", PhaseConnecting, "unreachable")
	b.wantRows("far", one)
	for _, r := range []schema.Resource{schema.ResourceNodes, schema.ResourceIdentities, schema.ResourceIPs, schema.ResourceServices} {
		if n := m.times(r); n != 1 {
			t.Errorf("%s: asked %d times", r, n)
		}
	}
}

func TestMesh_WhatWasKeptIsNotNeeded(t *testing.T) {
	c := newCluster(t, "far", 2)
	c.fill(2)
	b, m := newMemory(t, 2)
	b.add("far", c.ClientConfig())
	b.phase("far", PhaseReady, "")
	b.wantRows("far", one)
	if n := m.times(schema.ResourceNodes); n != 0 {
		t.Errorf("asked %d times while the remote answers", n)
	}
}

func TestMesh_KeptWithOurID(t *testing.T) {
	b, m := newMemory(t, 1)
	b.add("far", kvstore.Config{Endpoints: []string{"http://127.0.0.1:1"}})
	b.phase("far", PhaseConnecting, "unreachable")
	b.always("nothing that speaks for us", func() bool { return b.rows("far") == [4]int{} && m.times(schema.ResourceNodes) == 0 })
}
