// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a mesh under test: cluster "own" with id 1, tables, and a directory.
type bench struct {
	t      *testing.T
	dir    string
	tables Tables
	mesh   *Mesh
	reg    *prometheus.Registry
	log    *kvstoretest.LogBuffer
	stop   func()
}

func newBench(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	b := &bench{
		t: t, dir: filepath.Join(t.TempDir(), "mesh"), reg: prometheus.NewRegistry(), log: &kvstoretest.LogBuffer{},
		tables: Tables{
			Nodes:      state.NewTable[schema.NodeKey]("nodes", schema.Node.Equal),
			IPs:        state.NewTable[schema.IPKey]("ips", state.Equal[schema.IP]),
			Identities: state.NewTable[schema.IdentityKey]("identities", state.Equal[string]),
			Services:   state.NewTable[schema.ServiceKey]("services", schema.ClusterService.Equal),
		},
	}
	if err := os.Mkdir(b.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Dir, cfg.Cluster, cfg.ClusterID = b.dir, "own", 1
	cfg.Connect = time.Second
	cfg.Poll, cfg.ConfigPoll, cfg.RetryMin, cfg.RetryMax, cfg.Relist = 50*time.Millisecond, 50*time.Millisecond, 10*time.Millisecond, 100*time.Millisecond, 10*time.Millisecond
	cfg.Guard = kvstore.GuardConfig{Owners: true, Limit: time.Hour, Brief: time.Hour, Heartbeat: time.Minute, Follow: kvstoretest.WatchConfig()}
	cfg.Lineage = filepath.Join(filepath.Dir(b.dir), "lineage")
	if change != nil {
		change(&cfg)
	}
	var err error
	b.mesh, err = New(cfg, b.tables, b.reg, b.log.Logger())
	if err != nil {
		t.Fatal(err)
	}
	b.stop = kvstoretest.Go(t, b.mesh.Run)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(b.log)
		}
	})
	return b
}

// add writes the client file of a remote.
func (b *bench) add(name string, cfg kvstore.Config) {
	b.t.Helper()
	var s strings.Builder
	fmt.Fprintf(&s, "endpoints: [%s]\n", strings.Join(cfg.Endpoints, ", "))
	if cfg.CAFile != "" {
		fmt.Fprintf(&s, "trusted-ca-file: %s\n", cfg.CAFile)
	}
	if cfg.CertFile != "" {
		fmt.Fprintf(&s, "cert-file: %s\nkey-file: %s\n", cfg.CertFile, cfg.KeyFile)
	}
	b.write(name, s.String())
}

// write puts a file into the directory in one step.
func (b *bench) write(name, text string) {
	b.t.Helper()
	temp := filepath.Join(b.t.TempDir(), "file")
	if err := os.WriteFile(temp, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Rename(temp, filepath.Join(b.dir, name)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) remove(name string) {
	b.t.Helper()
	if err := os.Remove(filepath.Join(b.dir, name)); err != nil {
		b.t.Fatal(err)
	}
}

// remote is the status of one remote, zero where there is none.
func (b *bench) remote(name string) RemoteStatus {
	for _, r := range b.mesh.Status().Remotes {
		if r.Name == name {
			return r
		}
	}
	return RemoteStatus{}
}

// phase waits until a remote is in a phase, for a reason that contains a text.
func (b *bench) phase(name string, p Phase, reason string) {
	b.t.Helper()
	kvstoretest.Eventually(b.t, func() string {
		st := b.remote(name)
		if st.Phase == p && strings.Contains(st.Reason, reason) {
			return ""
		}
		return fmt.Sprintf("%s is %s (%s), want %s (%s)", name, st.Phase, st.Reason, p, reason)
	})
}

// rows counts those of a remote: nodes, addresses, identities, services.
func (b *bench) rows(name string) [4]int {
	var n [4]int
	for row := range b.tables.Nodes.All() {
		if row.Source == SourceOf(name) {
			n[0]++
		}
	}
	for row := range b.tables.IPs.All() {
		if row.Source == SourceOf(name) {
			n[1]++
		}
	}
	for row := range b.tables.Identities.All() {
		if row.Source == SourceOf(name) {
			n[2]++
		}
	}
	for row := range b.tables.Services.All() {
		if row.Source == SourceOf(name) {
			n[3]++
		}
	}
	return n
}

func (b *bench) wantRows(name string, want [4]int) {
	b.t.Helper()
	kvstoretest.Eventually(b.t, func() string {
		if got := b.rows(name); got != want {
			return fmt.Sprintf("%s has rows %v, want %v", name, got, want)
		}
		return ""
	})
}

// fault waits until a resource of a remote shows a reason that contains a text.
func (b *bench) fault(name string, r schema.Resource, text string) {
	b.t.Helper()
	kvstoretest.Eventually(b.t, func() string {
		got := ""
		for _, s := range b.remote(name).Resources {
			if s.Resource == r {
				got = s.LastReason
				if s.Faults > 0 && s.Rejected > 0 && strings.Contains(got, text) {
					return ""
				}
			}
		}
		return fmt.Sprintf("last reason %q, want %q", got, text)
	})
}

// always checks something again and again for a short while, and fails at once where it is not so.
func (b *bench) always(what string, ok func() bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 300*time.Millisecond)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if !ok() {
			b.t.Fatalf("not always so: %s", what)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// cluster is a remote with its store.
type cluster struct {
	*kvstoretest.Server
	t      *testing.T
	name   string
	id     uint32
	client *kvstore.Client
}

func newCluster(t *testing.T, name string, id uint32) *cluster {
	t.Helper()
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := &cluster{s, t, name, id, s.Client()}
	c.config(schema.ClusterConfig{ID: id})
	return c
}

func (c *cluster) put(key, value string) { c.t.Helper(); c.Put(c.client, key, value) }

func (c *cluster) del(key string) { c.t.Helper(); c.Delete(c.client, key) }

func (c *cluster) scope() schema.Scope { return schema.Scope{Cluster: c.name, ClusterID: c.id} }

func (c *cluster) config(cfg schema.ClusterConfig) {
	c.t.Helper()
	b, err := schema.ClusterConfigs().Encode(c.name, cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.put(schema.ClusterConfigPrefix+c.name, string(b))
}

func encoded[K comparable, V any](t *testing.T, codec schema.Codec[K, V], k K, v V) (key, value string) {
	t.Helper()
	b, err := codec.Encode(k, v)
	if err != nil {
		t.Fatal(err)
	}
	return codec.Prefix + codec.FormatKey(k), string(b)
}

func (c *cluster) node(s schema.Scope, name, ip string, cidrs ...string) (key string) {
	c.t.Helper()
	n := schema.Node{Name: name, Cluster: c.name, ClusterID: s.ClusterID, Addresses: []schema.NodeAddress{{Type: schema.InternalIP, IP: netip.MustParseAddr(ip)}}}
	for _, p := range cidrs {
		n.PodCIDRs = append(n.PodCIDRs, netip.MustParsePrefix(p))
	}
	key, value := encoded(c.t, schema.Nodes(s), schema.NodeKey{Cluster: c.name, Name: name}, n)
	c.put(key, value)
	return key
}

func (c *cluster) ip(s schema.Scope, prefix, host string, id uint32) (key string) {
	c.t.Helper()
	row := schema.IP{ID: id}
	if host != "" {
		row.HostIP = netip.MustParseAddr(host)
	}
	key, value := encoded(c.t, schema.IPs(s), schema.IPKey{Cluster: c.name, Prefix: netip.MustParsePrefix(prefix)}, row)
	c.put(key, value)
	return key
}

func (c *cluster) identity(s schema.Scope, id uint32) (key string) {
	c.t.Helper()
	key, value := encoded(c.t, schema.Identities(s), schema.IdentityKey{Cluster: c.name, ID: id}, "k8s:app=web;k8s:"+schema.ClusterLabelKey+"="+c.name+";")
	c.put(key, value)
	return key
}

func (c *cluster) service(s schema.Scope, name string, backends ...string) (key string) {
	c.t.Helper()
	row := schema.ClusterService{Cluster: c.name, Namespace: "default", Name: name, ClusterID: s.ClusterID, Shared: true, IncludeExternal: true, Backends: map[netip.Addr]map[string]schema.L4{}}
	for _, a := range backends {
		row.Backends[netip.MustParseAddr(a)] = map[string]schema.L4{"http": {Protocol: schema.TCP, Port: 80}}
	}
	key, value := encoded(c.t, schema.Services(s), schema.ServiceKey{Cluster: c.name, Namespace: "default", Name: name}, row)
	c.put(key, value)
	return key
}

// fill writes one row of each kind: net is the second byte of its addresses.
func (c *cluster) fill(net int) {
	c.t.Helper()
	c.fillAs(c.scope(), net)
}

func (c *cluster) fillAs(s schema.Scope, net int) {
	c.t.Helper()
	first, _ := schema.IdentityRange(s.ClusterID, 255)
	host := fmt.Sprintf("172.16.%d.1", net)
	c.node(s, "n1", host, fmt.Sprintf("10.%d.0.0/24", net))
	c.identity(s, first+5)
	c.ip(s, fmt.Sprintf("10.%d.0.5/32", net), host, first+5)
	c.service(s, "web", fmt.Sprintf("10.%d.0.5", net))
}

// newMirrored is a bench that has mirrored one row of each kind of a cluster.
func newMirrored(t *testing.T) (*bench, *cluster) {
	t.Helper()
	c := newCluster(t, "far", 2)
	c.fill(2)
	b := newBench(t, nil)
	b.add("far", c.ClientConfig())
	b.wantRows("far", one)
	return b, c
}

// one of each kind.
var one = [4]int{1, 1, 1, 1}
