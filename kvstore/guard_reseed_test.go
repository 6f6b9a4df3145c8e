// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// TestGuard_ReseedWithinRights: a node that is told to write back what it holds writes what it may, and
// names what it may not.
func TestGuard_ReseedWithinRights(t *testing.T) {
	t.Parallel()
	srv, root := rooted(t)
	if _, err := kvstore.Init(t.Context(), root, kvstore.InitConfig{Cluster: "a", Nodes: []string{"a1", "a2"}}); err != nil {
		t.Fatal(err)
	}
	var puts []clientv3.Op
	for i := range 70 {
		for _, node := range []string{"a1", "a2"} {
			puts = append(puts, clientv3.OpPut(fmt.Sprintf("%s%s/%d", schema.EndpointsPrefix, node, i), "x"))
		}
	}
	for from := 0; from < len(puts); from += 100 {
		if _, err := root.Txn(t.Context()).Then(puts[from:min(from+100, len(puts))]...).Commit(); err != nil {
			t.Fatal(err)
		}
	}

	g := &guarded{Server: srv, direct: root}
	g.begin(t, srv.ClientAs("node-a1"), guardConfig())
	g.watchOf(t, schema.EndpointsPrefix)
	g.watch.OwnedBy(func(k, _ string) string { owner, _, _ := strings.Cut(k, "/"); return owner })
	g.run(t)
	g.wantSynced(t, true)

	if _, err := root.Txn(t.Context()).Then(clientv3.OpDelete(schema.EndpointsPrefix, clientv3.WithPrefix())).Commit(); err != nil {
		t.Fatal(err)
	}
	g.wantHeld(t, 140)
	written, err := g.guard.Reseed(t.Context())
	var denied *kvstore.EndpointError
	if !errors.As(err, &denied) || denied.Reason != kvstore.ReasonUnauthorised || !strings.Contains(err.Error(), "70 of 140 rows") {
		t.Errorf("got %v, want that half of the rows are refused", err)
	}
	resp, err := root.Etcd().Get(t.Context(), schema.EndpointsPrefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		if !strings.HasPrefix(string(kv.Key), schema.EndpointsPrefix+"a1/") || kv.Lease == 0 {
			t.Errorf("%s was written, lease %x", kv.Key, kv.Lease)
		}
	}
	if written != 70 || len(resp.Kvs) != 70 {
		t.Errorf("%d rows are said to be written, %d are there, want 70", written, len(resp.Kvs))
	}
}

// TestGuard_ReseedAmongWhatIsThere: rows whose owners are back stay as they put them, and all others are
// written, whether they stand between those or not.
func TestGuard_ReseedAmongWhatIsThere(t *testing.T) {
	t.Parallel()
	const rows = 60
	g := newGuarded(t, guardConfig(), rows)
	g.Commit(g.direct, clientv3.OpDelete(kvstoretest.Prefix, clientv3.WithPrefix()))
	g.wantHeld(t, 10*rows)
	g.publish("n4", rows)
	g.publish("n40", 1) // one that nobody knew
	g.wantHeld(t, 9*rows)
	before := g.stored(t)
	if n, err := g.guard.Reseed(t.Context()); n != 9*rows || err != nil {
		t.Fatalf("%d rows were written, %v", n, err)
	}
	after := g.stored(t)
	for key, kv := range before {
		if after[key].ModRevision != kv.ModRevision {
			t.Errorf("%s was written over", key)
		}
	}
	if len(after) != 10*rows+1 {
		t.Errorf("%d rows are there", len(after))
	}
	g.wantHeld(t, 0)
	// Told again, there is nothing to do.
	if n, err := g.guard.Reseed(t.Context()); n != 0 || err != nil {
		t.Errorf("again: %d rows were written, %v", n, err)
	}
}

// stored are the rows of all owners.
func (g *guarded) stored(t *testing.T) map[string]kvstore.KV {
	t.Helper()
	l, err := g.direct.List(t.Context(), kvstoretest.Prefix, kvstore.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]kvstore.KV{}
	for _, kv := range l.KVs {
		out[kv.Key] = kv
	}
	return out
}

// TestGuard_ReseedLeases: what is a node's hangs on a lease that it takes over; what is the cluster's
// hangs on none, for nobody would.
func TestGuard_ReseedLeases(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		prefix string
		leased bool
	}{
		{schema.EndpointsPrefix, true},
		{schema.IPsPrefix, true},
		{schema.IdentityValuesPrefix, true},
		{schema.IdentityIDsPrefix, false},
		{schema.DefinitionsPrefix, false},
		{schema.ServicesPrefix, false},
		{schema.VIPsPrefix, false},
	} {
		t.Run(tt.prefix, func(t *testing.T) {
			t.Parallel()
			g := newUnwatched(t, 0, 0)
			g.Fill(g.direct, tt.prefix, 3, "x")
			g.begin(t, g.direct, guardConfig())
			g.watchOf(t, tt.prefix)
			g.run(t)
			g.wantSynced(t, true)
			g.Commit(g.direct, clientv3.OpDelete(tt.prefix, clientv3.WithPrefix()))
			g.wantHeld(t, 3)
			if n, err := g.guard.Reseed(t.Context()); n != 3 || err != nil {
				t.Fatalf("%d rows were written, %v", n, err)
			}
			resp, err := g.direct.Etcd().Get(t.Context(), tt.prefix, clientv3.WithPrefix())
			if err != nil {
				t.Fatal(err)
			}
			for _, kv := range resp.Kvs {
				if (kv.Lease != 0) != tt.leased {
					t.Errorf("%s hangs on lease %x", kv.Key, kv.Lease)
				}
			}
		})
	}
}
