// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/apiserver/cache"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
	tables "github.com/weft-net/weft/state" // a helper of these tests is called state
)

// owned writes what weft writes to the store of a cluster.
type owned struct {
	t *testing.T
	f *fixture
}

func putRow[K comparable, V any](o owned, codec schema.Codec[K, V], k K, v V) {
	o.t.Helper()
	b, err := codec.Encode(k, v)
	if err != nil {
		o.t.Fatal(err)
	}
	o.f.Put(o.f.direct, codec.Prefix+codec.FormatKey(k), string(b))
}

var east = schema.Scope{Cluster: "east", ClusterID: 1}

func epochID(n int) string { return strings.Repeat(fmt.Sprint(n), 32) }

func (o owned) epoch(n int) {
	o.t.Helper()
	b, err := schema.EncodeEpoch(schema.Epoch{ID: epochID(n), Created: time.Now()})
	if err != nil {
		o.t.Fatal(err)
	}
	o.f.Put(o.f.direct, schema.EpochKey, string(b))
}

func (o owned) beat() {
	o.t.Helper()
	o.f.Put(o.f.direct, schema.HeartbeatKey, string(schema.EncodeTime(time.Now())))
}

// node writes a node and addresses of its endpoints.
func (o owned) node(n int, addresses ...int) {
	o.t.Helper()
	name, host := fmt.Sprintf("n%d", n), netip.AddrFrom4([4]byte{172, 16, 1, byte(n)})
	putRow(o, schema.Nodes(east), schema.NodeKey{Cluster: "east", Name: name}, schema.Node{
		Name: name, Cluster: "east", ClusterID: 1, Addresses: []schema.NodeAddress{{Type: schema.InternalIP, IP: host}},
	})
	for _, i := range addresses {
		putRow(o, schema.IPs(east), addressOf(n, i), schema.IP{HostIP: host, ID: 1<<16 + 5})
	}
}

func addressOf(n, i int) schema.IPKey {
	return schema.IPKey{Cluster: "east", Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(n), byte(i)}), 32)}
}

func (o owned) says(owner string, epoch int) {
	o.t.Helper()
	putRow(o, schema.Owners(), owner, schema.Owner{Epoch: epochID(epoch), Complete: true})
}

// TestServer_OwnersDeleteInHold follows a cluster as another one's agent does, through an API server with
// the certificate of a remote, while its etcd is wiped: no row goes that nobody deleted, and what its
// owner does not bring back, or deletes, goes by the owner's word and not by a limit. So it is with a server
// that is started anew meanwhile.
func TestServer_OwnersDeleteInHold(t *testing.T) {
	t.Run("one-server", func(t *testing.T) { ownersDeleteInHold(t, func(*fixture, func(*Config)) {}) })
	t.Run("restarted", func(t *testing.T) {
		ownersDeleteInHold(t, func(f *fixture, edit func(*Config)) {
			f.stop()
			f.serve(t, edit)
		})
	})
}

func ownersDeleteInHold(t *testing.T, restart func(*fixture, func(*Config))) {
	t.Helper()
	t.Parallel()
	state := t.TempDir()
	edit := func(c *Config) { c.StateDir = state }
	f := &fixture{Server: kvstoretest.Start(t, kvstoretest.Options{}), ca: kvstoretest.NewCA(t, "mesh")}
	f.direct = f.Client()
	o := owned{t, f}
	o.epoch(1)
	o.beat()
	o.node(1, 1, 2, 3)
	o.node(2, 1, 2)
	f.tune = func(s *Server) {
		cfg := s.cfg.cache()
		cfg.Probe, cfg.HoldGrace, cfg.HoldLinger = 100*time.Millisecond, time.Second, time.Second
		c, err := cache.New(kvstoretest.NewClient(t, f.ProxyConfig()), cfg, kvstoretest.Log(t))
		if err != nil {
			t.Fatal(err)
		}
		s.cache = c
	}
	f.start(t, edit)

	cfg := kvstore.DefaultConfig()
	cfg.Endpoints, cfg.CAFile = []string{"https://" + f.address}, f.ca.File
	cfg.CertFile, cfg.KeyFile = f.ca.Issue(t, "remote-west", time.Hour)
	client := kvstoretest.NewClient(t, cfg)
	follow := kvstoretest.WatchConfig()
	guard := kvstore.NewGuard(client, kvstore.GuardConfig{
		Cluster: "east", Owners: true, ReadOnly: true, Limit: time.Hour, Brief: time.Hour, Follow: follow,
	}, kvstoretest.Log(t))
	kvstoretest.Go(t, guard.Run)
	follow.Source, follow.Guard = "cluster/east", guard
	table := tables.NewTable[schema.IPKey]("ips", tables.Equal[schema.IP])
	kvstoretest.Go(t, kvstore.NewWatch(client, schema.IPs(east), table, follow, kvstoretest.Log(t)).Run)
	// want waits until the agent has these addresses and holds nothing itself; always that it never lacks
	// one of some others meanwhile.
	want := func(rows map[schema.IPKey]bool) {
		t.Helper()
		kvstoretest.Eventually(t, func() string {
			o.beat()
			have := map[schema.IPKey]bool{}
			for row := range table.All() {
				have[row.Key] = true
			}
			for _, n := range []int{1, 2} { // of each node one stays for ever
				if f.api.cache.Generation() != nil && len(have) > 0 && !have[addressOf(n, 1)] {
					t.Fatalf("%v is gone, which nobody deleted", addressOf(n, 1))
				}
			}
			if h := guard.Status().Hold; h.Holding {
				return fmt.Sprintf("the agent holds %d rows itself: %s", h.Rows, h.Reason)
			}
			return cmp.Diff(rows, have, cmp.Comparer(func(a, b schema.IPKey) bool { return a == b }))
		})
	}
	rows := map[schema.IPKey]bool{
		addressOf(1, 1): true, addressOf(1, 2): true, addressOf(1, 3): true, addressOf(2, 1): true, addressOf(2, 2): true,
	}
	want(rows)

	f.Proxy.Part()
	f.Wipe()
	f.Burn(f.direct, 50) // overtakes what was
	f.Proxy.Rejoin()
	kvstoretest.Eventually(t, func() string {
		if f.api.cache.Status().Holding.IsZero() {
			return "the server does not know that the store was lost"
		}
		return ""
	})
	want(rows)
	restart(f, edit)
	want(rows)
	lost := f.api.cache.Generation()
	o.epoch(2)
	<-lost.Done()
	want(rows)

	// The first node is back, one address fewer, and says so; then it deletes another.
	o.node(1, 1, 2)
	o.says("n1", 2)
	delete(rows, addressOf(1, 3))
	want(rows)
	restart(f, edit)
	f.wantFresh(t)
	want(rows)
	f.Delete(f.direct, schema.IPsPrefix+"10.1.1.2")
	delete(rows, addressOf(1, 2))
	want(rows)
	if st := f.api.cache.Status(); st.Held.Rows == 0 || st.Held.Silent != 1 {
		t.Errorf("held %+v while a node is silent", st.Held)
	}

	o.node(2, 1) // one fewer
	o.says("n2", 2)
	o.says(schema.OperatorOwner, 2)
	kvstoretest.Eventually(t, func() string {
		o.beat()
		if st := f.api.cache.Status(); st.Held != (cache.Held{}) {
			return fmt.Sprintf("held %+v", st.Held)
		}
		return ""
	})
	f.wantFresh(t)
	delete(rows, addressOf(2, 2))
	want(rows)
	if lists := guard.Status().Generation; lists < 3 {
		t.Errorf("the agent is of generation %d: it did not see the store change", lists)
	}
}
