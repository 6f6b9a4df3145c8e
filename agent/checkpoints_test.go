// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/clustermesh"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// newKept returns checkpoints of a node of cluster a that is meshed with some others.
func newKept(dir string, mesh *clustermesh.Status) (*checkpoints, tables) {
	t := newTables()
	cfg := Config{Cluster: "a", ClusterID: 1, MaxClusters: 255, StateDir: dir, ClusterMeshDir: "/mesh"}
	return newCheckpoints(cfg, nil, t, func() clustermesh.Status { return *mesh }, slog.New(slog.DiscardHandler)), t
}

// fillRemote gives cluster b a node, an address, an identity and a service, all of them confirmed.
func fillRemote(t tables) {
	b := clustermesh.SourceOf("b")
	host, pod := netip.MustParseAddr("172.16.2.1"), netip.MustParseAddr("10.2.0.2")
	t.nodes.Put(b, 5, schema.NodeKey{Cluster: "b", Name: "b1"}, schema.Node{
		Name: "b1", Cluster: "b", ClusterID: 2, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24")},
		Addresses: []schema.NodeAddress{{Type: schema.InternalIP, IP: host}},
	})
	t.ips.Put(b, 6, schema.IPKey{Cluster: "b", Prefix: netip.PrefixFrom(pod, 32)}, schema.IP{ID: 2<<16 + 1, HostIP: host})
	t.identities.Put(b, 7, schema.IdentityKey{Cluster: "b", ID: 2<<16 + 1}, "k8s:app=web;k8s:io.cilium.k8s.policy.cluster=b;")
	t.remoteServices.Put(b, 8, schema.ServiceKey{Cluster: "b", Namespace: "d", Name: "web"}, schema.ClusterService{
		Cluster: "b", ClusterID: 2, Namespace: "d", Name: "web", Shared: true, IncludeExternal: true,
		Backends: map[netip.Addr]map[string]schema.L4{pod: {"": {Protocol: schema.TCP, Port: 80}}},
	})
	for _, x := range []confirmed{t.nodes, t.ips, t.identities, t.remoteServices} {
		x.Confirm(b, time.Now())
		x.MarkSynced(b)
	}
}

// confirmed is a table that can be called right.
type confirmed interface {
	Confirm(src state.Source, at time.Time)
	MarkSynced(src state.Source)
}

func meshWithB() *clustermesh.Status {
	return &clustermesh.Status{
		Directory: clustermesh.DirectoryStatus{Read: time.Unix(1, 0)},
		Remotes:   []clustermesh.RemoteStatus{{Name: "b", ID: 2, Phase: clustermesh.PhaseReady}},
	}
}

func TestCheckpoints_RemoteComesBack(t *testing.T) {
	dir := t.TempDir()
	c, before := newKept(dir, meshWithB())
	before.nodes.Expect(clustermesh.SourceOf("b"))
	c.save()
	if _, err := os.Stat(c.path("b")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a store was kept before it was known: %v", err)
	}
	fillRemote(before)
	c.save()

	c, after := newKept(dir, meshWithB())
	if id := c.ID("b"); id != 2 {
		t.Fatalf("id %d", id)
	}
	for _, r := range []schema.Resource{schema.ResourceNodes, schema.ResourceIPs, schema.ResourceIdentities} {
		if rows := c.Restore("b", r); rows != 1 {
			t.Errorf("%s: %d rows", r, rows)
		}
	}
	if c.restored.Len() != 0 {
		t.Error("called restored without services")
	}
	c.Restore("b", schema.ResourceServices)
	if _, restored := c.restored.Get(clustermesh.SourceOf("b")); !restored {
		t.Error("not called restored")
	}
	if c.serving("b") == "" || !strings.Contains(c.line().Summary, "b: from checkpoint, ") {
		t.Errorf("line %v", c.line())
	}
	for _, x := range []struct {
		name      string
		want, got any
	}{
		{"nodes", rowsOf(before.nodes), rowsOf(after.nodes)}, {"ips", rowsOf(before.ips), rowsOf(after.ips)},
		{"identities", rowsOf(before.identities), rowsOf(after.identities)}, {"services", rowsOf(before.remoteServices), rowsOf(after.remoteServices)},
	} {
		if d := cmp.Diff(x.want, x.got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, schema.IP{})); d != "" {
			t.Errorf("%s: %s", x.name, d)
		}
	}
	if after.nodes.SyncedBy(clustermesh.SourceOf("b")) {
		t.Error("what was restored is called synced")
	}
}

func rowsOf[K comparable, V any](t *state.Table[K, V]) map[string]V {
	rows := map[string]V{}
	for r := range t.All() {
		rows[fmt.Sprint(r.Key, r.Origin)] = r.Value
	}
	return rows
}

func TestCheckpoints_FollowTheMesh(t *testing.T) {
	mesh := *meshWithB()
	c, tables := newKept(t.TempDir(), &mesh)
	there := func(want bool) {
		t.Helper()
		if _, err := os.Stat(c.path("b")); (err == nil) != want {
			t.Errorf("file of b: %v", err)
		}
	}
	fillRemote(tables)
	c.save()
	there(true)
	first := c.store("b").written
	tables.nodes.Confirm(clustermesh.SourceOf("b"), time.Now())
	c.save()
	if c.store("b").written != first {
		t.Error("written without a change")
	}
	tables.ips.Delete(clustermesh.SourceOf("b"), 9, schema.IPKey{Cluster: "b", Prefix: netip.MustParsePrefix("10.2.0.2/32")})
	c.save()
	if got := c.store("b"); got.rows != 3 {
		t.Errorf("%d rows after a deletion", got.rows)
	}

	// A directory that cannot be read says nothing about who is in the mesh.
	mesh.Remotes, mesh.Directory.Problem = nil, "gone"
	c.save()
	there(true)
	mesh.Directory.Problem = ""
	c.save()
	there(false)

	// One that lost its id was drained, and does not come back by its file.
	mesh = *meshWithB()
	tables.ips.Put(clustermesh.SourceOf("b"), 9, schema.IPKey{Cluster: "b", Prefix: netip.MustParsePrefix("10.2.0.2/32")}, schema.IP{ID: 2<<16 + 1})
	c.save()
	there(true)
	mesh.Remotes = []clustermesh.RemoteStatus{{Name: "b", Phase: clustermesh.PhaseRefused}}
	c.save()
	there(false)
}

func TestCheckpoints_CannotWrite(t *testing.T) {
	dir := t.TempDir()
	c, tables := newKept(dir, meshWithB())
	fillRemote(tables)
	if err := os.WriteFile(filepath.Join(dir, "checkpoint"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.save()
	if l := c.line(); l.Health != api.Health_HEALTH_FAILED || !strings.Contains(l.Hint, "state-dir") {
		t.Errorf("line %v", l)
	}
}
