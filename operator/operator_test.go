// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(kvstoretest.Patient{M: m}) }

func testConfig(name string) Config {
	c := DefaultConfig()
	c.Name, c.Cluster, c.ClusterID, c.Etcd = name, "east", 1, "/etc/weft/etcd.yaml"
	c.LeaderTTL, c.Retry, c.Heartbeat = 2*time.Second, 10*time.Millisecond, 50*time.Millisecond
	return c
}

// start runs an operator until the test ends or stop is called.
func start(t *testing.T, cfg Config, client *kvstore.Client) (o *Operator, stop func()) {
	t.Helper()
	o, err := New(cfg, client, nil, prometheus.NewRegistry(), kvstoretest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	return o, kvstoretest.Go(t, o.Run)
}

func put[K comparable, V any](t *testing.T, c *kvstore.Client, codec schema.Codec[K, V], k K, v V) {
	t.Helper()
	b, err := codec.Encode(k, v)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(t.Context(), codec.Prefix+codec.FormatKey(k), b, 0); err != nil {
		t.Fatal(err)
	}
}

// want waits until a key has a value that contains the text; an empty text: until it is not there.
func want(t *testing.T, c *kvstore.Client, key, text string) {
	t.Helper()
	kvstoretest.Eventually(t, func() string {
		kv, ok, err := c.Get(t.Context(), key)
		switch {
		case err != nil:
			return err.Error()
		case text == "" && ok:
			return fmt.Sprintf("%s is still there: %s", key, kv.Value)
		case text != "" && !strings.Contains(string(kv.Value), text):
			return fmt.Sprintf("%s is %q, want %q in it", key, kv.Value, text)
		}
		return ""
	})
}

var (
	webKey  = schema.DefinitionKey{Namespace: "default", Name: "web"}
	podKey  = schema.EndpointKey{Cluster: "east", Node: "n1", ID: 7}
	scope   = schema.Scope{Cluster: "east", ClusterID: 1, MaxClusters: 255}
	exports = schema.ServicesPrefix + "east/"
)

func web(global string) schema.Definition {
	return schema.Definition{
		Ports:       []schema.ServicePort{{Name: "http", Port: 80, Protocol: 6}},
		Selector:    map[string]string{"app": "web"},
		Annotations: map[string]string{"service.cilium.io/global": global},
		VIPs:        []netip.Addr{netip.MustParseAddr("10.96.0.10")},
	}
}

func pod(addr string) schema.Endpoint {
	return schema.Endpoint{
		Namespace: "default", Name: "web-0", Addresses: []netip.Addr{netip.MustParseAddr(addr)},
		Labels: map[string]string{"k8s:app": "web"}, Identity: 65600,
	}
}

func TestOperator_PublishesAndLeavesStanding(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := kvstoretest.NewClient(t, s.ClientConfig())
	put(t, c, schema.Services(scope), schema.ServiceKey{Cluster: "east", Namespace: "default", Name: "gone"}, schema.ClusterService{
		Cluster: "east", ClusterID: 1, Namespace: "default", Name: "gone", Shared: true, IncludeExternal: true,
	})
	put(t, c, schema.Definitions(), webKey, web("true"))
	put(t, c, schema.Endpoints(scope), podKey, pod("10.1.1.5"))

	_, stop := start(t, testConfig("one"), c)
	want(t, c, exports+"default/web", `"10.1.1.5":{"http":{"Protocol":"TCP","Port":80}}`)
	want(t, c, exports+"default/gone", "")
	want(t, c, schema.ClusterConfigPrefix+"east", `"id":1`)
	want(t, c, schema.HeartbeatKey, "T")

	// Somebody deletes or changes what is the operator's.
	if _, err := c.Delete(t.Context(), schema.ClusterConfigPrefix+"east"); err != nil {
		t.Fatal(err)
	}
	want(t, c, schema.ClusterConfigPrefix+"east", `"id":1`)
	if _, err := c.Put(t.Context(), schema.ClusterConfigPrefix+"east", []byte(`{"id":9}`), 0); err != nil {
		t.Fatal(err)
	}
	want(t, c, schema.ClusterConfigPrefix+"east", `"id":1`)

	put(t, c, schema.Endpoints(scope), podKey, pod("10.1.1.6"))
	want(t, c, exports+"default/web", "10.1.1.6")
	put(t, c, schema.Definitions(), webKey, web("false"))
	want(t, c, exports+"default/web", "")
	put(t, c, schema.Definitions(), webKey, web("true"))
	want(t, c, exports+"default/web", "10.1.1.6")

	stop()
	for _, key := range []string{exports + "default/web", schema.ClusterConfigPrefix + "east"} {
		kv, ok, err := c.Get(t.Context(), key)
		if err != nil || !ok || kv.Lease != 0 {
			t.Errorf("%s after the operator: there %v, lease %x, %v; want it to stay without a lease", key, ok, kv.Lease, err)
		}
	}
}

func TestOperator_OneLeads(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	first, stopFirst := start(t, testConfig("first"), kvstoretest.NewClient(t, s.ClientConfig()))
	leading := func(o *Operator) func() string {
		return func() string {
			if testutil.ToFloat64(o.metrics.leader) != 1 {
				return o.cfg.Name + " does not lead"
			}
			return ""
		}
	}
	kvstoretest.Eventually(t, leading(first))
	second, _ := start(t, testConfig("second"), kvstoretest.NewClient(t, s.ClientConfig()))
	c := kvstoretest.NewClient(t, s.ClientConfig())
	kvstoretest.Eventually(t, func() string {
		res, err := c.Etcd().Get(t.Context(), schema.ElectionsPrefix+office, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil || res.Count != 2 {
			return fmt.Sprintf("%v candidates, %v", res, err)
		}
		return ""
	})
	if leading(second)() == "" {
		t.Error("two lead")
	}
	stopFirst()
	kvstoretest.Eventually(t, leading(second))
}

func TestOperator_LosesItsLease(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := kvstoretest.NewClient(t, s.ClientConfig())
	start(t, testConfig("one"), c)
	want(t, c, schema.HeartbeatKey, "T")
	res, err := c.Etcd().Get(t.Context(), schema.ElectionsPrefix+office, clientv3.WithPrefix())
	if err != nil || len(res.Kvs) != 1 {
		t.Fatal(res, err)
	}
	if _, err := c.Etcd().Revoke(t.Context(), clientv3.LeaseID(res.Kvs[0].Lease)); err != nil {
		t.Fatal(err)
	}
	kvstoretest.Eventually(t, func() string {
		now, err := c.Etcd().Get(t.Context(), schema.ElectionsPrefix+office, clientv3.WithPrefix())
		if err != nil || len(now.Kvs) != 1 || now.Kvs[0].Lease == res.Kvs[0].Lease {
			return fmt.Sprintf("no new leadership: %v %v", now, err)
		}
		return ""
	})
}

func TestCompactor_LeavesWhatOthersDo(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := kvstoretest.NewClient(t, s.ClientConfig())
	cfg := testConfig("one")
	lead := testKeeper(t, c, "", "one")
	k := &compactor{client: c, cfg: cfg, log: kvstoretest.Log(t), fence: elect(t, c, lead), done: prometheus.NewCounter(prometheus.CounterOpts{Name: "n"})}
	now := time.Now()
	write := func() int64 {
		rev, err := c.Put(t.Context(), "k", []byte("v"), 0)
		if err != nil {
			t.Fatal(err)
		}
		return rev
	}
	turn := func(after time.Duration, wantDone float64) {
		t.Helper()
		now = now.Add(after)
		if err := k.turn(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		if got := testutil.ToFloat64(k.done); got != wantDone {
			t.Errorf("%v compactions, want %v", got, wantDone)
		}
	}
	for range 5 {
		write()
	}
	kept := write()
	turn(0, 0)
	write()
	turn(cfg.Keep/2, 0)
	old := write()
	turn(cfg.Keep/2, 1) // everything before the first turn
	if _, err := c.Etcd().Get(t.Context(), "k", clientv3.WithRev(kept)); err != nil {
		t.Errorf("the history within %v is gone: %v", cfg.Keep, err)
	}
	if _, err := c.Etcd().Get(t.Context(), "k", clientv3.WithRev(kept-1)); err == nil {
		t.Error("nothing was compacted")
	}
	if _, err := c.Etcd().Compact(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	turn(cfg.Keep/2, 1) // somebody else was faster
}

func TestConfig_Parse(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"good", "name: a\ncluster: east\ncluster-id: 1\netcd: /e\nheartbeat: 30s\n", ""},
		{"unknown-key", "name: a\ncluster: east\ncluster-id: 1\nheart-beat: 30s\n", "heart-beat"},
		{"duration", "name: a\ncluster: east\ncluster-id: 1\nheartbeat: 30\n", "heartbeat"},
		{"negative", "name: a\ncluster: east\ncluster-id: 1\nkeep: -1s\n", "keep"},
		{"no-name", "cluster: east\ncluster-id: 1\n", "name: is missing"},
		{"cluster", "name: a\ncluster: East\ncluster-id: 1\n", "cluster"},
		{"id", "name: a\ncluster: east\ncluster-id: 256\n", "cluster-id"},
		{"max", "name: a\ncluster: east\ncluster-id: 1\nmax-clusters: 300\n", "max-clusters"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseConfig([]byte(c.text))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
