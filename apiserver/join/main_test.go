// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"golang.org/x/time/rate"

	"github.com/weft-net/weft/apiserver"
	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is a whole one for a test, as far as joining sees it: an etcd with the rows of a node and an
// operator, authorities, an API server, and what lets others join.
type cluster struct {
	*kvstoretest.Server
	client   *kvstore.Client
	settings Settings
	server   *Server
	registry *prometheus.Registry
	door     string // address where it is joined
	dir      string
}

// newCluster starts one that ends with the test.
func newCluster(t testing.TB, name string, id uint32, cidr string) *cluster {
	t.Helper()
	c := &cluster{Server: kvstoretest.Start(t, kvstoretest.Options{}), dir: t.TempDir()}
	c.client = c.Client()
	c.certificates(t, name)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.settings.Cluster, c.settings.ID, c.settings.MaxClusters, c.settings.Mode = name, id, 255, "vxlan"
	c.settings.URLs = []string{"https://" + l.Addr().String()}
	c.settings.MeshDir = filepath.Join(c.dir, "mesh")
	c.write(t, name, id, cidr)
	c.beat(t)

	cfg := apiserver.DefaultConfig()
	cfg.Name, cfg.Cluster, cfg.Etcd, cfg.Listen = name+"-1", name, "etcd.yaml", l.Addr().String()
	cfg.CAFile, cfg.CertFile, cfg.KeyFile = c.settings.CAFile, c.settings.CertFile, c.settings.KeyFile
	api, err := apiserver.New(cfg, kvstoretest.NewClient(t, c.ClientConfig()), prometheus.NewRegistry(), kvstoretest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	c.door = freeAddress(t)
	c.registry = prometheus.NewRegistry()
	server, err := New(Config{Settings: c.settings, Listen: c.door, Ban: api.Ban}, c.client, c.registry, kvstoretest.Log(t).With("cluster", name))
	if err != nil {
		t.Fatal(err)
	}
	server.poll, server.look = 10*time.Millisecond, 50*time.Millisecond
	server.door.each = rate.Inf
	server.door.all.SetLimit(rate.Inf)
	c.server = server
	api.RenewBy(server.Renew)
	kvstoretest.Go(t, func(ctx context.Context) error { return api.Serve(ctx, l) })
	kvstoretest.Go(t, server.Run)
	return c
}

// certificates makes the authorities and the API server's certificate.
func (c *cluster) certificates(t testing.TB, name string) {
	t.Helper()
	d, err := trust.Create(filepath.Join(c.dir, "trust"), name, nil)
	must(t, err)
	authority, err := d.Authority(trust.RoleCluster)
	must(t, err)
	key, err := trust.NewKey()
	must(t, err)
	chain, err := authority.SignServer(key.Public(), trust.Server{Name: "apiserver", Hosts: []string{"127.0.0.1"}, Cluster: name}, trust.ServerLife)
	must(t, err)
	c.settings.CAFile = d.CAFile()
	c.settings.CertFile, c.settings.KeyFile = filepath.Join(c.dir, "server.crt"), filepath.Join(c.dir, "server.key")
	c.settings.PeerCAFile, c.settings.PeerCAKeyFile = d.Files(trust.RolePeer)
	must(t, trust.WritePair(c.settings.CertFile, c.settings.KeyFile, chain, key))
}

// write puts the rows of the cluster: what it says of itself, and one node.
func (c *cluster) write(t testing.TB, name string, id uint32, cidr string) {
	t.Helper()
	configs := schema.ClusterConfigs()
	b, err := configs.Encode(name, schema.ClusterConfig{ID: id, MaxConnectedClusters: 255})
	must(t, err)
	c.Put(c.client, configs.Prefix+name, string(b))
	nodes := schema.Nodes(schema.Scope{Cluster: name, ClusterID: id, MaxClusters: 255})
	b, err = nodes.Encode(schema.NodeKey{Cluster: name, Name: "n1"}, schema.Node{
		Name: "n1", Cluster: name, ClusterID: id,
		Addresses: []schema.NodeAddress{{Type: schema.InternalIP, IP: netip.MustParseAddr("192.0.2.1")}},
		PodCIDRs:  []netip.Prefix{netip.MustParsePrefix(cidr)},
	})
	must(t, err)
	c.Put(c.client, nodes.Prefix+"n1", string(b))
}

// beat lets the operator live.
func (c *cluster) beat(t testing.TB) {
	t.Helper()
	c.Put(c.client, schema.HeartbeatKey, string(schema.EncodeTime(time.Now())))
}

// token makes one for another cluster.
func (c *cluster) token(t testing.TB, o Order) Token {
	t.Helper()
	if o.Life == 0 {
		o.Life = DefaultLife
	}
	o.Endpoints = []string{c.door}
	tok, err := NewToken(t.Context(), c.client, c.settings, o)
	must(t, err)
	c.awaitDoor(t, true)
	return tok
}

// awaitDoor waits until the cluster can be joined, or cannot.
func (c *cluster) awaitDoor(t testing.TB, open bool) {
	t.Helper()
	kvstoretest.Eventually(t, func() string {
		conn, err := net.DialTimeout("tcp", c.door, time.Second)
		if err == nil {
			conn.Close()
		}
		if (err == nil) != open {
			return "the door is not as wanted"
		}
		return ""
	})
}

// join joins the cluster that made a token.
func (c *cluster) join(t testing.TB, tok Token, edit func(*Joiner)) (Joined, error) {
	t.Helper()
	j := Joiner{Client: c.client, Settings: c.settings, See: 20 * time.Second}
	if edit != nil {
		edit(&j)
	}
	return j.Join(t.Context(), tok)
}

// wantState waits for the state of a peer.
func (c *cluster) wantState(t testing.TB, peer string, state schema.PeerState) schema.Peer {
	t.Helper()
	var p schema.Peer
	kvstoretest.Eventually(t, func() string {
		peers, err := Peers(t.Context(), c.client)
		if err != nil {
			return err.Error()
		}
		if p = peers[peer]; p.State != state {
			return "state is " + string(p.State) + ", want " + string(state)
		}
		return ""
	})
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// freeAddress is an address below the ports that connections begin at: nobody gets it while the door is
// closed.
func freeAddress(t testing.TB) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.N(22000)))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		must(t, err)
		defer l.Close()
		return l.Addr().String()
	}
}

var compareText = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
