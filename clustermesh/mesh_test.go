// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

func TestMesh_MirrorsARemote(t *testing.T) {
	c := newCluster(t, "far", 2)
	c.fill(2)
	c.put(schema.HeartbeatKey, "2026-01-02T15:04:05Z")
	b := newBench(t, nil)
	b.add("far", c.ClientConfig())
	b.phase("far", PhaseReady, "")
	b.wantRows("far", one)

	// A remote's host is a remote node here.
	c.ip(c.scope(), "10.2.0.1/32", "172.16.2.1", identityHost)
	kvstoretest.Eventually(t, func() string {
		row, _ := b.tables.IPs.Get(schema.IPKey{Cluster: "far", Prefix: netip.MustParsePrefix("10.2.0.1/32")})
		if row.Value.ID != identityRemoteNode {
			return fmt.Sprintf("row %+v", row)
		}
		return ""
	})
	// Changes and deletions follow.
	c.del(c.service(c.scope(), "web", "10.2.0.5", "10.2.0.6"))
	b.wantRows("far", [4]int{1, 2, 1, 0})

	kvstoretest.Eventually(t, func() string {
		st := b.remote("far")
		if st.Heartbeat.IsZero() {
			return "no heartbeat"
		}
		for _, r := range st.Resources {
			if !r.Connected {
				return fmt.Sprintf("%s is not followed yet", r.Resource)
			}
		}
		return ""
	})
	st := b.remote("far")
	if st.ID != 2 || !st.Connected || !st.Config.Retrieved || st.Config.ID != 2 || len(st.Resources) != 4 {
		t.Errorf("status %+v", st)
	}
	for _, r := range st.Resources {
		if !r.Synced || !r.Connected || r.Confirmed.IsZero() || r.Revision == 0 || r.Faults != 0 {
			t.Errorf("resource %+v", r)
		}
	}
	families, err := b.reg.Gather()
	if err != nil || len(families) < 8 {
		t.Errorf("%d metric families, %v", len(families), err)
	}
	for _, table := range b.tables.all() {
		if s, ok := table.(interface{ Synced() bool }); !ok || !s.Synced() {
			t.Errorf("table is not synced")
		}
	}
}

// TestMesh_NothingIsPrunedBeforeTheDirectoryWasRead: tables wait, with and without a mesh.
func TestMesh_NothingIsPrunedBeforeTheDirectoryWasRead(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Dir = filepath.Join(c.Dir, "not-there-yet") })
	b.always("unsynced without a directory", func() bool { return !b.tables.IPs.Synced() })
	if st := b.mesh.Status().Directory; !strings.Contains(st.Problem, "no such file") || !st.Read.IsZero() {
		t.Errorf("directory %+v", st)
	}
	if err := os.Mkdir(filepath.Join(b.dir, "not-there-yet"), 0o755); err != nil {
		t.Fatal(err)
	}
	synced := func(b *bench) {
		t.Helper()
		kvstoretest.Eventually(t, func() string {
			if !b.tables.IPs.Synced() {
				return "not synced"
			}
			return ""
		})
	}
	synced(b)
	synced(newBench(t, func(c *Config) { c.Dir = "" }))
	// A remote that nobody can reach is waited for.
	u := newBench(t, nil)
	u.add("dead", kvstore.Config{Endpoints: []string{"http://127.0.0.1:1"}})
	u.phase("dead", PhaseConnecting, "unreachable")
	u.always("unsynced without the remote", func() bool { return !u.tables.IPs.Synced() })
}

func TestMesh_ClusterConfig(t *testing.T) {
	c := newCluster(t, "far", 2)
	c.fill(2)
	c.del(schema.ClusterConfigPrefix + "far")
	b := newBench(t, nil)
	b.add("far", c.ClientConfig())
	b.phase("far", PhaseConfiguring, "no cluster-config yet")
	for reason, config := range map[string]string{
		"cluster id 1 is ours":     `{"id":1,"capabilities":{}}`,
		"cluster id 0":             `{"capabilities":{}}`,
		"cluster id 256":           `{"id":256,"capabilities":{}}`,
		"not known":                `{"id":2,"capabilities":{"endpointSlicesExportMode":"new"}}`,
		"refused: invalid row":     `{"id":`,
		`refused: invalid row "fa`: "\xff\xfe",
	} {
		c.put(schema.ClusterConfigPrefix+"far", config)
		b.phase("far", PhaseRefused, reason)
	}
	if got := b.rows("far"); got != [4]int{} {
		t.Errorf("rows %v of a refused remote", got)
	}
	// Nobody waits for one that cannot claim anything.
	kvstoretest.Eventually(t, func() string {
		if !b.tables.IPs.Synced() {
			return "not synced"
		}
		return ""
	})
	c.config(schema.ClusterConfig{ID: 2})
	b.phase("far", PhaseReady, "")
	b.wantRows("far", one)

	// From now on a bad one is shown, and what works goes on.
	for reason, config := range map[string]string{
		"cluster id 1 is ours": `{"id":1,"capabilities":{}}`,
		"invalid row":          `[]`,
	} {
		c.put(schema.ClusterConfigPrefix+"far", config)
		b.phase("far", PhaseReady, reason)
	}
	c.del(schema.ClusterConfigPrefix + "far")
	b.phase("far", PhaseReady, "no cluster-config yet")
	c.ip(c.scope(), "10.2.0.6/32", "172.16.2.1", 2<<16+5)
	b.wantRows("far", [4]int{1, 2, 1, 1})
}

func TestMesh_ChangedIDDrainsAndBeginsAgain(t *testing.T) {
	b, c := newMirrored(t)
	c.config(schema.ClusterConfig{ID: 3})
	kvstoretest.Eventually(t, func() string {
		if st := b.remote("far"); st.ID != 3 {
			return fmt.Sprintf("id %d", st.ID)
		}
		return ""
	})
	// The rows still say 2.
	b.wantRows("far", [4]int{})
	b.fault("far", schema.ResourceNodes, "cluster id 2, want 3")
	c.id = 3
	c.fill(2)
	b.wantRows("far", [4]int{1, 1, 1, 1})
	b.phase("far", PhaseReady, "")
}

func TestMesh_OneIDTwice(t *testing.T) {
	zoo, ant := newCluster(t, "zoo", 7), newCluster(t, "ant", 7)
	zoo.fill(2)
	ant.fill(3)
	b := newBench(t, nil)
	b.add("zoo", zoo.ClientConfig())
	b.wantRows("zoo", one)
	// Who was there first does not count: another node may have seen them in the other order.
	b.add("ant", ant.ClientConfig())
	b.wantRows("ant", one)
	b.wantRows("zoo", [4]int{})
	b.phase("zoo", PhaseRefused, "7 belongs to cluster ant")
	// It goes on when the other has gone.
	b.remove("ant")
	b.wantRows("zoo", one)
	b.wantRows("ant", [4]int{})
	b.phase("zoo", PhaseReady, "")
}

func TestMesh_PinnedIDGoesFirst(t *testing.T) {
	zoo, ant := newCluster(t, "zoo", 7), newCluster(t, "ant", 7)
	zoo.fill(2)
	ant.fill(3)
	b := newBench(t, func(c *Config) { c.Pins = map[string]Pin{"zoo": {ID: 7}} })
	b.add("ant", ant.ClientConfig())
	b.wantRows("ant", one)
	b.add("zoo", zoo.ClientConfig())
	b.wantRows("zoo", one)
	b.wantRows("ant", [4]int{})
	b.phase("ant", PhaseRefused, "7 belongs to cluster zoo")
	// And it may have no other.
	b2 := newBench(t, func(c *Config) { c.Pins = map[string]Pin{"zoo": {ID: 8}} })
	b2.add("zoo", zoo.ClientConfig())
	b2.phase("zoo", PhaseRefused, "it joined with 8")
}

func TestMesh_SyncedMarks(t *testing.T) {
	for _, cached := range []bool{false, true} {
		t.Run(fmt.Sprintf("cached-%t", cached), func(t *testing.T) {
			c := newCluster(t, "far", 2)
			c.config(schema.ClusterConfig{ID: 2, SyncedCanaries: true, Cached: cached})
			s := c.scope()
			s.Cached = cached
			c.fillAs(s, 2)
			b := newBench(t, nil)
			b.add("far", c.ClientConfig())
			b.phase("far", PhaseSyncing, "wait for the key "+schema.SyncedKey("far", schema.ResourceNodes, cached))
			mark := func(r schema.Resource) {
				c.put(schema.SyncedKey("far", r, cached), "2026-01-02T15:04:05Z")
			}
			mark(schema.ResourceIdentities)
			b.wantRows("far", [4]int{0, 0, 1, 0})
			// Addresses wait for the nodes that they are checked against.
			mark(schema.ResourceIPs)
			b.phase("far", PhaseSyncing, "wait for the key")
			b.always("addresses wait", func() bool { return b.rows("far") == [4]int{0, 0, 1, 0} })
			mark(schema.ResourceNodes)
			b.wantRows("far", [4]int{1, 1, 1, 0})
			mark(schema.ResourceServices)
			b.wantRows("far", one)
			b.phase("far", PhaseReady, "")
			// A mark that goes says nothing.
			c.del(schema.SyncedKey("far", schema.ResourceNodes, cached))
			b.always("ready", func() bool { return b.remote("far").Phase == PhaseReady })
		})
	}
}

// TestMesh_CachedLayoutOfManyClusters: one store holds two clusters, each remote reads its own.
func TestMesh_CachedLayoutOfManyClusters(t *testing.T) {
	c := newCluster(t, "far", 2)
	c.config(schema.ClusterConfig{ID: 2, Cached: true})
	c.fillAs(schema.Scope{Cluster: "far", ClusterID: 2, Cached: true}, 2)
	other := &cluster{c.Server, t, "further", 3, c.client}
	other.config(schema.ClusterConfig{ID: 3, Cached: true})
	other.fillAs(schema.Scope{Cluster: "further", ClusterID: 3, Cached: true}, 3)
	b := newBench(t, nil)
	b.add("far", c.ClientConfig())
	b.add("further", c.ClientConfig())
	b.wantRows("far", one)
	b.wantRows("further", one)
}

// TestMesh_BadRows: what a remote may not say, and what nobody may. Each is counted and shown, no
// row changes, and what is valid goes on.
func TestMesh_BadRows(t *testing.T) {
	b, c := newMirrored(t)
	far := c.scope()
	wrong := schema.Scope{Cluster: "far", ClusterID: 9}
	for _, s := range []struct {
		name     string
		resource schema.Resource
		reason   string
		write    func() string
	}{
		{"identity-outside-range", schema.ResourceIdentities, "not in the range", func() string { return c.identity(wrong, 9<<16+1) }},
		{"identity-without-cluster", schema.ResourceIdentities, "name no cluster", func() string {
			k := schema.IdentityMasterKey(2<<16 + 9)
			c.put(k, "k8s:app=x;")
			return k
		}},
		{"identity-of-another-cluster", schema.ResourceIdentities, `of cluster "own"`, func() string {
			k := schema.IdentityMasterKey(2<<16 + 9)
			c.put(k, "k8s:"+schema.ClusterLabelKey+"=own;")
			return k
		}},
		{"ip-with-foreign-identity", schema.ResourceIPs, "not in the range", func() string { return c.ip(wrong, "10.2.0.9/32", "", 9<<16+1) }},
		{"ip-outside-pod-cidrs", schema.ResourceIPs, "outside the pod CIDRs", func() string { return c.ip(far, "10.99.0.9/32", "172.16.2.1", 2<<16+5) }},
		{"node-of-another-cluster", schema.ResourceNodes, `says cluster "own"`, func() string {
			k := schema.NodesPrefix + "far/n9"
			c.put(k, `{"Name":"n9","Cluster":"own","ClusterID":1}`)
			return k
		}},
		{"node-with-another-id", schema.ResourceNodes, "cluster id 9", func() string { return c.node(wrong, "n9", "172.16.2.9") }},
		{"service-of-another-cluster", schema.ResourceServices, `says cluster "own"`, func() string {
			k := schema.ServicesPrefix + "far/default/x"
			c.put(k, `{"cluster":"own","namespace":"default","name":"x","shared":true,"clusterID":2}`)
			return k
		}},
		{"one-megabyte", schema.ResourceServices, "", func() string {
			k := schema.ServicesPrefix + "far/default/x"
			c.put(k, `{"cluster":"far","namespace":"default","name":"x","clusterID":2,"labels":{"x":"`+strings.Repeat("x", 1<<20)+`"}}`)
			return k
		}},
		{"invalid-utf8", schema.ResourceNodes, "", func() string { k := schema.NodesPrefix + "far/n9"; c.put(k, "{\"Name\":\"n\xff\"}"); return k }},
		{"invalid-json", schema.ResourceIPs, "", func() string { k := schema.IPsPrefix + "10.2.0.9"; c.put(k, `{"IP":`); return k }},
		{"key-that-is-none", schema.ResourceIPs, "", func() string { k := schema.IPsPrefix + "not/an/address"; c.put(k, `{}`); return k }},
	} {
		t.Run(s.name, func(t *testing.T) {
			b.t = t
			key := s.write()
			b.fault("far", s.resource, s.reason)
			if got := b.rows("far"); got != one {
				t.Errorf("rows %v", got)
			}
			c.del(key)
			kvstoretest.Eventually(t, func() string {
				for _, r := range b.remote("far").Resources {
					if r.Faults > 0 {
						return fmt.Sprintf("still %d faults of %s", r.Faults, r.Resource)
					}
				}
				return ""
			})
		})
	}
	b.t = t
	// A row that was good keeps its value when a bad one comes.
	key := c.service(far, "web", "10.2.0.7")
	kvstoretest.Eventually(t, func() string {
		row, _ := b.tables.Services.Get(schema.ServiceKey{Cluster: "far", Namespace: "default", Name: "web"})
		if _, ok := row.Value.Backends[netip.MustParseAddr("10.2.0.7")]; !ok {
			return "not there"
		}
		return ""
	})
	c.put(key, "{}")
	b.fault("far", schema.ResourceServices, "")
	row, ok := b.tables.Services.Get(schema.ServiceKey{Cluster: "far", Namespace: "default", Name: "web"})
	if !ok || len(row.Value.Backends) != 1 {
		t.Errorf("the row is now %+v", row)
	}
	b.phase("far", PhaseReady, "")
}

func TestMesh_LossKeepsRows(t *testing.T) {
	b, c := newMirrored(t)
	b.phase("far", PhaseReady, "")
	c.Kill()
	b.phase("far", PhaseAway, "")
	b.always("rows stay", func() bool { return b.rows("far") == one })
	st := b.remote("far")
	if st.Connected || st.LastError == "" || st.Reason == "" {
		t.Errorf("status %+v", st)
	}
	c.Restart()
	b.phase("far", PhaseReady, "")
	c.ip(c.scope(), "10.2.0.6/32", "172.16.2.1", 2<<16+5)
	b.wantRows("far", [4]int{1, 2, 1, 1})
	// Changes, deletions and a compaction while it cannot be seen.
	b.stopAndGo(c, func() {
		c.del(schema.IPsPrefix + "10.2.0.5")
		c.identity(c.scope(), 2<<16+6)
		c.Burn(c.client, 20)
		c.Compact(c.client)
	})
	b.wantRows("far", [4]int{1, 1, 2, 1})
	b.phase("far", PhaseReady, "")
}

// stopAndGo reaches the remote through its proxy, cuts that while f runs, and lets it go on.
func (b *bench) stopAndGo(c *cluster, f func()) {
	b.t.Helper()
	b.add("far", c.ProxyConfig())
	kvstoretest.Eventually(b.t, func() string {
		st := b.remote("far")
		if st.Phase != PhaseReady || !st.Connected || len(st.Endpoints) == 0 || st.Endpoints[0] != c.ProxyConfig().Endpoints[0] {
			return fmt.Sprintf("%+v", st)
		}
		return ""
	})
	c.Proxy.Freeze()
	f()
	c.Proxy.Cut()
	c.Proxy.Thaw()
}

func TestMesh_StopDrainsNothing(t *testing.T) {
	b, _ := newMirrored(t)
	b.stop()
	if got := b.rows("far"); got != one {
		t.Errorf("rows %v", got)
	}
}

func TestMesh_Certificates(t *testing.T) {
	ca, other := kvstoretest.NewCA(t, "theirs"), kvstoretest.NewCA(t, "another")
	s := kvstoretest.Start(t, kvstoretest.Options{CA: ca, Name: "server"})
	cfg := s.UserConfig("remote")
	c := &cluster{s, t, "far", 2, kvstoretest.NewClient(t, cfg)}
	c.config(schema.ClusterConfig{ID: 2})
	c.fill(2)
	b := newBench(t, nil)

	wrong := cfg
	wrong.CAFile = other.File
	b.add("far", wrong)
	b.phase("far", PhaseConnecting, "signed by a CA that trusted-ca-file does not hold")
	wrong = cfg
	wrong.CertFile, wrong.KeyFile = other.Issue(t, "remote", time.Hour)
	b.add("far", wrong)
	b.phase("far", PhaseConnecting, "certificate")
	wrong = cfg
	wrong.CertFile, wrong.KeyFile = ca.Issue(t, "late", -time.Hour)
	b.add("far", wrong)
	b.phase("far", PhaseConnecting, "expired")
	wrong = cfg
	wrong.CertFile = filepath.Join(t.TempDir(), "none")
	b.add("far", wrong)
	b.phase("far", PhaseConnecting, "certificate file")
	b.add("far", cfg)
	b.phase("far", PhaseReady, "")
	b.wantRows("far", one)

	// Rotated to one that is not trusted: what was mirrored stays, the status says why.
	wrong = cfg
	wrong.CertFile, wrong.KeyFile = other.Issue(t, "remote", time.Hour)
	b.add("far", wrong)
	b.phase("far", PhaseConnecting, "certificate")
	b.always("rows stay", func() bool { return b.rows("far") == one })
}

func TestNew_BadConfig(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"name":         func(c *Config) { c.Cluster = "Bad Name" },
		"id":           func(c *Config) { c.ClusterID = 0 },
		"id-too-large": func(c *Config) { c.ClusterID = 256 },
		"max":          func(c *Config) { c.MaxClusters = 100 },
		"negative":     func(c *Config) { c.Poll = -1 },
		"retry":        func(c *Config) { c.RetryMin, c.RetryMax = 2, 1 },
	} {
		cfg := DefaultConfig()
		cfg.Cluster, cfg.ClusterID = "own", 1
		change(&cfg)
		if _, err := New(cfg, Tables{}, nil, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestMesh_AsUserRemote mirrors with no more rights than a store gives to other clusters, and says
// what is wrong with a name that has none.
func TestMesh_AsUserRemote(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{CA: kvstoretest.NewCA(t, "theirs"), Name: "server"})
	c := &cluster{s, t, "far", 2, s.ClientAs(kvstore.UserRoot)}
	if _, err := kvstore.Init(t.Context(), c.client, kvstore.InitConfig{Cluster: "far"}); err != nil {
		t.Fatal(err)
	}
	c.config(schema.ClusterConfig{ID: 2, SyncedCanaries: true})
	c.fill(2)
	c.put(schema.HeartbeatKey, "2026-01-02T15:04:05Z")
	for _, r := range []schema.Resource{schema.ResourceNodes, schema.ResourceIPs, schema.ResourceIdentities, schema.ResourceServices} {
		c.put(schema.SyncedKey("far", r, false), "2026-01-02T15:04:05Z")
	}
	b := newBench(t, nil)
	b.add("far", s.UserConfig("stranger"))
	b.phase("far", PhaseConnecting, "our certificate's name may not do this")
	b.add("far", s.UserConfig(kvstore.UserRemote))
	b.phase("far", PhaseReady, "")
	b.wantRows("far", one)
	kvstoretest.Eventually(t, func() string {
		if b.remote("far").Heartbeat.IsZero() {
			return "no heartbeat"
		}
		return ""
	})
}
