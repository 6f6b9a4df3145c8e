// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// leave lets nodes leave, whose leases nobody refreshes.
func (l *leased) leave(nodes ...int) {
	l.t.Helper()
	for _, n := range nodes {
		_, err := kvstore.Leave(l.t.Context(), l.direct, kvstore.LeaveConfig{Node: fmt.Sprintf("n%d", n), Quiet: time.Second})
		l.must(err)
	}
}

// neverHeld fails if the guard ever holds.
func (l *leased) neverHeld() {
	held, changed := l.guard.Holding()
	if held {
		l.t.Error("something is held at the start")
	}
	l.t.Cleanup(func() {
		select {
		case <-changed:
			l.t.Error("something was held")
		default:
		}
	})
}

// TestLeave_ManyAtOnce: nodes that leave in order are gone at once, where as many leases that end are held.
func TestLeave_ManyAtOnce(t *testing.T) {
	t.Parallel()
	l := newLeased(t, leasedNodes, expireConfig())
	l.neverHeld()
	// References hang on the lease too, and an endpoint on none.
	reference := schema.IdentityValuesPrefix + "k8s:app=x;/192.0.2.2"
	l.Commit(l.direct, clientv3.OpPut(reference, "65600", clientv3.WithLease(l.leases[1])),
		encoded(l, schema.Endpoints(scope), schema.EndpointKey{Cluster: "a", Node: "n1", ID: 9}, schema.Endpoint{
			Namespace: "d", Name: "old", Addresses: []netip.Addr{netip.MustParseAddr("10.0.1.9")},
		}, clientv3.NoLease))
	l.want(leasedNodes*ofOne+1, 0, 0)
	report, err := kvstore.Leave(t.Context(), l.direct, kvstore.LeaveConfig{Node: "n1", DryRun: true})
	l.must(err)
	want := kvstore.LeaveReport{Cluster: "a", Rows: map[string]int{
		schema.NodesPrefix: 1, schema.EndpointsPrefix: 4, schema.IPsPrefix: 3, schema.IdentityValuesPrefix: 1,
	}}
	if diff := cmp.Diff(want, report); diff != "" {
		t.Fatalf("report (-want +got): %s", diff)
	}
	l.leave(1, 2, 3)
	l.want((leasedNodes-3)*ofOne, 0, 0)
	if _, there, err := l.direct.Get(t.Context(), reference); there || err != nil {
		t.Errorf("the reference of a node that left is there: %v, %v", there, err)
	}
	if _, err := kvstore.Leave(t.Context(), l.direct, kvstore.LeaveConfig{Node: "n1"}); !errors.Is(err, kvstore.ErrNoNode) {
		t.Errorf("leave again: %v", err)
	}
}

// TestLeave_WhileNobodyLooks: who was cut off meanwhile, and lists, reads the last words.
func TestLeave_WhileNobodyLooks(t *testing.T) {
	t.Parallel()
	l := newLeased(t, leasedNodes, expireConfig())
	l.Proxy.Part()
	l.leave(1, 2, 3, 4)
	l.Burn(l.direct, 200)
	l.Proxy.Rejoin()
	l.want((leasedNodes-4)*ofOne, 0, 0)
	// One that comes back is a node like any other.
	l.publish(1, 3)
	l.want((leasedNodes-3)*ofOne, 0, 0)
	l.expire(1, 5, 6, 7)
	l.want((leasedNodes-3)*ofOne, 4*ofOne, 0)
}

// TestLeave_InAHold: nobody waits for the word of a node that left.
func TestLeave_InAHold(t *testing.T) {
	t.Parallel()
	l := newLeased(t, leasedNodes, expireConfig())
	l.expire(1, 2, 3)
	l.want(leasedNodes*ofOne, 3*ofOne, 0)
	l.leave(4, 5)
	l.want((leasedNodes-2)*ofOne, 3*ofOne, 0)
	for _, n := range []int{1, 2, 3} {
		l.publish(n, 3)
	}
	l.want((leasedNodes-2)*ofOne, 0, 0)
}

// TestLeave_RefusesWhoseAgentRuns: the rows would be written again.
func TestLeave_RefusesWhoseAgentRuns(t *testing.T) {
	t.Parallel()
	l := newLeased(t, 1, expireConfig())
	session := kvstore.NewSession(l.direct, kvstore.SessionConfig{TTL: 9 * time.Second, Refresh: time.Second}, kvstoretest.Log(t))
	stop := kvstoretest.Go(t, session.Run)
	lease, _, err := session.Lease(t.Context())
	l.must(err)
	l.Commit(l.direct, encoded(l, schema.Nodes(scope), schema.NodeKey{Cluster: "a", Name: "n0"}, schema.Node{
		Name: "n0", Cluster: "a", ClusterID: 1, Addresses: []schema.NodeAddress{{Type: schema.InternalIP, IP: netip.MustParseAddr("192.0.2.1")}},
	}, lease))
	if _, err := kvstore.Leave(t.Context(), l.direct, kvstore.LeaveConfig{Node: "n0"}); !errors.Is(err, kvstore.ErrNodeAlive) {
		t.Errorf("leave of a node that is alive: %v", err)
	}
	l.want(ofOne, 0, 0)
	stop()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := kvstore.Leave(ctx, l.direct, kvstore.LeaveConfig{Node: "n0"}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// TestLeave_ByItsOwnCertificate: the rights of a node are enough for its own leave, and for no other's.
func TestLeave_ByItsOwnCertificate(t *testing.T) {
	t.Parallel()
	srv, root := rooted(t)
	if _, err := kvstore.Init(t.Context(), root, kvstore.InitConfig{Cluster: "a", Nodes: []string{"n0", "n1"}}); err != nil {
		t.Fatal(err)
	}
	l := &leased{Server: srv, t: t, direct: srv.ClientAs("admin-a"), leases: map[int]clientv3.LeaseID{}}
	l.publish(0, 2)
	l.publish(1, 2)
	l.direct = srv.ClientAs("node-n1")
	if _, err := kvstore.Leave(t.Context(), l.direct, kvstore.LeaveConfig{Node: "n0", Quiet: time.Second}); err == nil {
		t.Error("a node made another one leave")
	}
	l.leave(1)
	left, err := root.List(t.Context(), schema.NodesPrefix, kvstore.ListOptions{})
	l.must(err)
	if len(left.KVs) != 1 || left.KVs[0].Key != schema.NodesPrefix+"a/n0" {
		t.Errorf("nodes after the leave of n1: %v", left.KVs)
	}
}
