// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"testing"

	"go.etcd.io/etcd/client/v3/concurrency"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// etcd judges a transaction by all it could do, so everything here must lie within what a node's and
// the operator's certificates allow.
func TestAllocator_WithTheRightsOfANode(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{CA: kvstoretest.NewCA(t, "ca"), Name: "server"})
	if _, err := kvstore.Init(timeout(t), s.ClientAs("root"), kvstore.InitConfig{Cluster: "c3", Nodes: []string{"n1", "n2"}}); err != nil {
		t.Fatal(err)
	}
	a, b := startAs(t, s.ClientAs("node-n1"), "172.16.0.1"), startAs(t, s.ClientAs("node-n2"), "172.16.0.2")
	operator := s.ClientAs("operator-c3")

	id := a.must(t, set("web"))
	if got := b.must(t, set("web")); got != id {
		t.Errorf("got %d, want %d", uint32(got), uint32(id))
	}
	if got, err := a.Restore(timeout(t), set("old"), 200000); err != nil || got != 200000 {
		t.Errorf("restore: got %d, %v", uint32(got), err)
	}
	key := schema.IdentityMasterKey(uint32(id))
	eventually(t, "known", func() bool { return a.Allocator.known.of(set("web").String()) == id })
	s.Delete(operator, key)
	eventually(t, "written again", func() bool { v, _ := a.value(t, key); return v == set("web").String() })

	session, err := concurrency.NewSession(b.client.Etcd(), concurrency.WithTTL(25))
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	mutex := concurrency.NewMutex(session, schema.IdentityLockPath(set("locked").String()))
	if err := mutex.Lock(timeout(t)); err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	g.Go(func() error { _, err := a.Allocate(timeout(t), set("locked")); return err })
	eventually(t, "queues for the lock", func() bool { return a.Stats().Locked == 1 })
	if err := mutex.Unlock(timeout(t)); err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}

	a.Release(set("old"))
	eventually(t, "released", func() bool {
		return len(tails(t, operator, schema.IdentityReferencesPrefix(set("old").String()))) == 0
	})
	gc := newGC(t, operator, GCConfig{})
	round(t, gc)
	round(t, gc)
	if got := tails(t, operator, schema.RestingPrefix); fmt.Sprint(got) != "[200000]" {
		t.Errorf("at rest: got %v", got)
	}
	// Back while it rests, as after a long restart.
	if got, err := b.Restore(timeout(t), set("old"), 200000); err != nil || got != 200000 {
		t.Errorf("restore: got %d, %v", uint32(got), err)
	}
	if st := a.Stats(); st.Renumbered != 0 || st.LastError != nil {
		t.Errorf("got %+v", st)
	}
}
