// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// leased is a cluster of nodes that each keep a node row, an owners' row, and three endpoints with
// their addresses under a lease, and one who watches them.
type leased struct {
	*kvstoretest.Server
	t      *testing.T
	direct *kvstore.Client
	leases map[int]clientv3.LeaseID
	kept   map[string]kvstore.List // what a checkpoint has

	guard     *kvstore.Guard
	nodes     *state.Table[schema.NodeKey, schema.Node]
	ips       *state.Table[schema.IPKey, schema.IP]
	endpoints *state.Table[schema.EndpointKey, schema.Endpoint]
	connected func() bool
	stop      func()
}

const (
	leasedNodes = 10
	ofOne       = 7 // rows of one node in the three tables
)

var scope = schema.Scope{Cluster: "a", ClusterID: 1}

func newLeased(t *testing.T, nodes int, cfg kvstore.GuardConfig) *leased {
	t.Helper()
	l := &leased{Server: plain(t), t: t, leases: map[int]clientv3.LeaseID{}}
	l.direct = l.Client()
	l.beat()
	for n := range nodes {
		l.publish(n, 3)
	}
	l.start(cfg)
	l.want(nodes*ofOne, 0, 0)
	return l
}

func (l *leased) beat() {
	l.t.Helper()
	value, err := schema.EncodeEpoch(schema.Epoch{ID: epoch(1)})
	l.must(err)
	l.Put(l.direct, schema.EpochKey, string(value))
	l.Put(l.direct, schema.HeartbeatKey, string(schema.EncodeTime(time.Now())))
}

func (l *leased) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func encoded[K comparable, V any](l *leased, c schema.Codec[K, V], k K, v V, lease clientv3.LeaseID) clientv3.Op {
	l.t.Helper()
	b, err := c.Encode(k, v)
	l.must(err)
	return clientv3.OpPut(c.Prefix+c.FormatKey(k), string(b), clientv3.WithLease(lease))
}

// publish puts the rows of a node with some endpoints on a new lease, and its word at last.
func (l *leased) publish(n, endpoints int) {
	l.t.Helper()
	lease, err := l.direct.Etcd().Grant(l.t.Context(), 3600)
	l.must(err)
	l.leases[n] = lease.ID
	name, host := fmt.Sprintf("n%d", n), netip.AddrFrom4([4]byte{192, 0, 2, byte(n + 1)})
	ops := []clientv3.Op{encoded(l, schema.Nodes(scope), schema.NodeKey{Cluster: "a", Name: name}, schema.Node{
		Name: name, Cluster: "a", ClusterID: 1, Addresses: []schema.NodeAddress{{Type: schema.InternalIP, IP: host}},
	}, lease.ID)}
	for i := range endpoints {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(n), byte(i + 1)})
		ops = append(ops,
			encoded(l, schema.Endpoints(scope), schema.EndpointKey{Cluster: "a", Node: name, ID: uint32(i + 1)}, schema.Endpoint{
				Namespace: "d", Name: fmt.Sprint(i), Addresses: []netip.Addr{addr},
			}, lease.ID),
			encoded(l, schema.IPs(scope), schema.IPKey{Cluster: "a", Prefix: netip.PrefixFrom(addr, 32)}, schema.IP{HostIP: host, ID: 65600}, lease.ID))
	}
	l.Commit(l.direct, ops...)
	l.Commit(l.direct, encoded(l, schema.Owners(), name, schema.Owner{Epoch: epoch(1), Rows: len(ops), Complete: true}, lease.ID))
}

// expire ends the leases of nodes, as etcd does when nobody refreshes them: each in one revision.
func (l *leased) expire(nodes ...int) {
	l.t.Helper()
	for _, n := range nodes {
		_, err := l.direct.Etcd().Revoke(l.t.Context(), l.leases[n])
		l.must(err)
	}
}

func (l *leased) start(cfg kvstore.GuardConfig) {
	l.t.Helper()
	c := kvstoretest.NewClient(l.t, l.ProxyConfig())
	log := kvstoretest.Log(l.t)
	l.guard = kvstore.NewGuard(c, cfg, log)
	wc := kvstoretest.WatchConfig()
	wc.Guard = l.guard
	nodes, ips, endpoints := schema.Nodes(scope), schema.IPs(scope), schema.Endpoints(scope)
	l.nodes = state.NewTable[schema.NodeKey]("nodes", nodes.Equal)
	l.ips = state.NewTable[schema.IPKey]("ips", ips.Equal)
	l.endpoints = state.NewTable[schema.EndpointKey]("endpoints", endpoints.Equal)
	a, b, d := kvstore.NewWatch(c, nodes, l.nodes, wc, log), kvstore.NewWatch(c, ips, l.ips, wc, log), kvstore.NewWatch(c, endpoints, l.endpoints, wc, log)
	if l.kept != nil {
		a.Restore(slices.Values(l.kept[nodes.Prefix].KVs), 1, time.Now())
		b.Restore(slices.Values(l.kept[ips.Prefix].KVs), 1, time.Now())
		d.Restore(slices.Values(l.kept[endpoints.Prefix].KVs), 1, time.Now())
	}
	l.connected = func() bool { return a.Status().Connected && b.Status().Connected && d.Status().Connected }
	var stops []func()
	for _, run := range []func() func(){
		func() func() { return kvstoretest.Go(l.t, l.guard.Run) },
		func() func() { return kvstoretest.Go(l.t, a.Run) },
		func() func() { return kvstoretest.Go(l.t, b.Run) },
		func() func() { return kvstoretest.Go(l.t, d.Run) },
	} {
		stops = append(stops, run())
	}
	l.stop = func() {
		for _, stop := range slices.Backward(stops) {
			stop()
		}
	}
}

// keep is what writes a checkpoint.
func (l *leased) keep() {
	l.t.Helper()
	l.kept = map[string]kvstore.List{}
	for _, prefix := range []string{schema.Nodes(scope).Prefix, schema.IPs(scope).Prefix, schema.Endpoints(scope).Prefix} {
		list, err := l.direct.List(l.t.Context(), prefix, kvstore.ListOptions{})
		l.must(err)
		l.kept[prefix] = list
	}
}

// want waits until so many rows are known, held and settling.
func (l *leased) want(rows, held, settling int) {
	l.t.Helper()
	kvstoretest.Eventually(l.t, func() string {
		got := l.nodes.Len() + l.ips.Len() + l.endpoints.Len()
		st := l.guard.Status()
		holding, _ := l.guard.Holding()
		synced := l.nodes.Synced() && l.ips.Synced() && l.endpoints.Synced()
		if got != rows || st.Hold.Rows != held || st.Hold.Settling != settling || holding != (held > 0) || synced == holding || !l.connected() {
			return fmt.Sprintf("%d rows, %d held, %d settling, synced %v, want %d, %d, %d: %+v", got, st.Hold.Rows, st.Hold.Settling, synced, rows, held, settling, st)
		}
		return ""
	})
}

func expireConfig() kvstore.GuardConfig {
	cfg := guardConfig()
	cfg.Settle = time.Hour
	return cfg
}

// TestGuard_LeaseEnds: one node's rows settle, and go; or come back.
func TestGuard_LeaseEnds(t *testing.T) {
	t.Parallel()
	t.Run("settles", func(t *testing.T) {
		t.Parallel()
		l := newLeased(t, leasedNodes, expireConfig())
		l.expire(3)
		l.want(leasedNodes*ofOne, 0, ofOne)
		for _, r := range l.guard.Held(100) {
			if !r.Settling || r.Owner != "n3" || r.Why != kvstore.WhyExpired {
				t.Fatalf("settling row is %+v", r)
			}
		}
		l.expire(4)
		l.want(leasedNodes*ofOne, 0, 2*ofOne)
		l.publish(3, 2) // it comes back with one endpoint less, and says that this is all
		l.want(leasedNodes*ofOne-2, 0, ofOne)
	})
	t.Run("goes", func(t *testing.T) {
		t.Parallel()
		cfg := expireConfig()
		cfg.Settle = 200 * time.Millisecond
		l := newLeased(t, leasedNodes, cfg)
		l.expire(3)
		l.want((leasedNodes-1)*ofOne, 0, 0)
	})
	t.Run("of-a-cilium-cluster", func(t *testing.T) {
		t.Parallel()
		cfg := expireConfig()
		cfg.Owners = false
		l := newLeased(t, leasedNodes, cfg)
		l.expire(3)
		l.want(leasedNodes*ofOne, 0, ofOne)
		l.Delete(l.direct, schema.NodesPrefix+"a/n4") // in order, as far as it shows
		l.want(leasedNodes*ofOne-1, 0, ofOne)
		l.expire(5, 6)
		l.want(leasedNodes*ofOne-1, 3*ofOne, 0)
	})
	t.Run("goes-while-nobody-looks", func(t *testing.T) {
		t.Parallel()
		cfg := expireConfig()
		cfg.Settle = 200 * time.Millisecond
		l := newLeased(t, leasedNodes, cfg)
		l.Proxy.Part()
		l.expire(3)
		l.Burn(l.direct, 200)
		l.Proxy.Rejoin()
		l.want((leasedNodes-1)*ofOne, 0, 0)
	})
}

// TestGuard_OwnDeletion: what a node deletes itself is gone at once, be it all that it has.
func TestGuard_OwnDeletion(t *testing.T) {
	t.Parallel()
	l := newLeased(t, leasedNodes, expireConfig())
	workloads := func(n int) []clientv3.Op {
		return []clientv3.Op{
			clientv3.OpDelete(fmt.Sprintf("%sn%d/", schema.EndpointsPrefix, n), clientv3.WithPrefix()),
			clientv3.OpDelete(fmt.Sprintf("%s10.0.%d.", schema.IPsPrefix, n), clientv3.WithPrefix()),
		}
	}
	for n := range leasedNodes / 2 {
		l.Commit(l.direct, workloads(n)...)
	}
	l.want(leasedNodes/2*(ofOne+1), 0, 0)
	// One leaves in order.
	l.Commit(l.direct, workloads(7)...)
	l.Delete(l.direct, schema.OwnersPrefix+"n7")
	l.Delete(l.direct, schema.NodesPrefix+"a/n7")
	l.want(leasedNodes/2*(ofOne+1)-ofOne, 0, 0)
	// The same while nobody looks, but for the node's own row.
	l.Proxy.Part()
	l.Commit(l.direct, workloads(8)...)
	l.Burn(l.direct, 200)
	l.Proxy.Rejoin()
	l.want(leasedNodes/2*(ofOne+1)-ofOne-6, 0, 0)
}

// TestGuard_ManyLeasesEnd: too many at once are not believed, seen as they go, found gone, or replayed.
func TestGuard_ManyLeasesEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		nodes  int
		expire []int
		away   bool
		gap    int
	}{
		{"three-of-ten", leasedNodes, []int{1, 2, 3}, false, 0},
		{"both", 2, []int{0, 1}, false, 0},
		{"all-while-away-and-replayed", leasedNodes, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, true, 0},
		{"all-while-away-and-listed", leasedNodes, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, true, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLeased(t, tt.nodes, expireConfig())
			if tt.away {
				l.Proxy.Part()
			}
			l.expire(tt.expire...)
			if tt.away {
				l.Burn(l.direct, tt.gap)
				l.Proxy.Rejoin()
			}
			all, held := tt.nodes*ofOne, len(tt.expire)*ofOne
			l.want(all, held, 0)
			if st := l.guard.Status(); st.Hold.Unconfirmed != len(tt.expire) || st.Hold.Reason != string(kvstore.WhyExpired) {
				t.Fatalf("status is %+v", st)
			}
			for i, n := range tt.expire {
				l.publish(n, 2) // each with an endpoint less
				l.want(all-2*(i+1), held-(i+1)*ofOne, 0)
			}
		})
	}
}

// TestGuard_ManyLeasesEndAndRestart: the next process holds them too, and what ended while none ran
// settles like any other.
func TestGuard_ManyLeasesEndAndRestart(t *testing.T) {
	t.Parallel()
	cfg := expireConfig()
	cfg.File = filepath.Join(t.TempDir(), "lineage")
	l := newLeased(t, leasedNodes, cfg)
	const all = leasedNodes * ofOne
	l.keep()
	l.stop()
	l.expire(1)
	l.start(cfg)
	l.want(all, 0, ofOne)
	l.stop()
	l.start(cfg)
	l.want(all, 0, ofOne)
	l.publish(1, 3)
	l.want(all, 0, 0)

	l.stop()
	l.expire(1, 2, 3)
	l.start(cfg)
	l.want(all, 3*ofOne, 0)
	l.publish(1, 3)
	l.want(all, 2*ofOne, 0) // two would not be too many, if they were all
	since := l.guard.Status().Hold.Since
	l.stop()
	l.start(cfg)
	l.want(all, 2*ofOne, 0)
	if st := l.guard.Status().Hold; !st.Since.Equal(since) || st.Reason != string(kvstore.WhyExpired) {
		t.Fatalf("since %s, want %s: %+v", st.Since, since, st)
	}
	l.publish(2, 3)
	l.publish(3, 3)
	l.want(all, 0, 0)
}
