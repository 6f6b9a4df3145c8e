// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/clustermesh"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// One of two mirrors writes. The other takes over without writing again what stands, and only what the
// remote has changed meanwhile.
func TestMirror_StandbyTakesOver(t *testing.T) {
	t.Parallel()
	s, far, one, stop := newCopied(t)
	s.says("far", complete)
	before := s.copies()
	two, _ := s.start("two", nil)
	kvstoretest.Eventually(t, func() string {
		if st := two.Status(); len(st.Remotes) != 1 || st.Remotes[0].Phase != clustermesh.PhaseReady || !one.Leading() || two.Leading() {
			return fmt.Sprintf("one leads %v, two leads %v, and reads %+v", one.Leading(), two.Leading(), st)
		}
		return ""
	})
	stop()
	far.del(far.address(2, 7)) // while nobody writes, perhaps
	kept := far.address(2, 8)
	s.says("far", func(m schema.Mirror) bool { return m.By == "two" && complete(m) })
	s.wantCopy(far)
	after := s.copies()
	delete(after, schema.MirrorPrefix("far", schema.ResourceIPs)+kept[len(schema.IPsPrefix):])
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("written again (-before +after):\n%s", diff)
	}
	// The new leader takes away what the one before had written.
	far.del(schema.NodesPrefix + "far/n2")
	s.wantCopy(far)
}

// A mirror that was cut off from our store writes nothing after another has taken over, and comes back as
// the second.
func TestMirror_TwoForAMoment(t *testing.T) {
	t.Parallel()
	s, far := newSide(t), newRemote(t, "far", 2)
	far.fill()
	s.knows("far", far.ClientConfig())
	client := kvstoretest.NewClient(t, s.ProxyConfig())
	one, err := New(s.settings("one"), client, nil, kvstoretest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	kvstoretest.Go(t, one.Run)
	s.wantCopy(far)
	two, _ := s.start("two", nil)
	s.Proxy.Part()
	far.address(1, 9)
	kvstoretest.Eventually(t, func() string {
		if !two.Leading() {
			return "two does not lead"
		}
		return ""
	})
	s.wantCopy(far)
	s.says("far", func(m schema.Mirror) bool { return m.By == "two" })
	s.Proxy.Rejoin()
	far.del(schema.IPsPrefix + "10.2.1.9")
	s.wantCopy(far)
	kvstoretest.Eventually(t, func() string {
		if got := s.under(schema.MirrorElectionsPrefix); len(got) != 2 || one.Leading() || !two.Leading() {
			return fmt.Sprintf("candidates %v, one leads %v, two leads %v", got, one.Leading(), two.Leading())
		}
		return ""
	})
	// Whatever of the first was still on its way met the fence.
	if row, _ := s.row("far"); row.By != "two" {
		t.Errorf("said by %q", row.By)
	}
}

// What a mirror that died has written stays, on no lease.
func TestMirror_CrashLeavesTheLastState(t *testing.T) {
	t.Parallel()
	s, far, _, stop := newCopied(t)
	last := s.says("far", complete)
	before := s.copies()
	stop()
	for _, prefix := range append(prefixes(), schema.MirrorsPrefix) {
		l, err := s.client.Etcd().Get(t.Context(), prefix, clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range l.Kvs {
			if kv.Lease != 0 {
				t.Errorf("%s hangs on a lease", kv.Key)
			}
		}
	}
	// One that starts while the remote is away changes nothing but what it says.
	far.Kill()
	s.start("two", nil)
	row := s.says("far", func(m schema.Mirror) bool { return m.By == "two" && m.Reason != "" })
	if row.Connected || row.Complete || row.ID != 2 || row.Confirmed != last.Confirmed || row.Rows != last.Rows {
		t.Errorf("said of a remote that is away: %+v, before %+v", row, last)
	}
	if diff := cmp.Diff(before, s.copies()); diff != "" {
		t.Errorf("changed (-before +after):\n%s", diff)
	}
}

// A remote whose store was wiped is in hold: nothing of its copy is written or deleted, not even what it has
// anew, until the hold is over.
func TestMirror_WritesNothingInHold(t *testing.T) {
	t.Parallel()
	s, far, m, _ := newCopied(t)
	s.says("far", complete)
	before := s.copies()
	far.Wipe()
	far.config(`{"id":2,"capabilities":{}}`)
	far.node(1)
	far.address(1, 5)
	s.says("far", func(m schema.Mirror) bool { return m.Connected && m.Holding && !m.Complete })
	far.address(1, 77)
	kvstoretest.Eventually(t, func() string {
		if h := m.Status().Remotes[0].Hold; h.Rows != 6 {
			return fmt.Sprintf("hold %+v", h)
		}
		return ""
	})
	s.always("the copy stands still", func() bool { return cmp.Equal(before, s.copies()) })
	if _, _, err := m.mesh.Guards()["far"].Adopt(t.Context(), "a test"); err != nil {
		t.Fatal(err)
	}
	s.wantCopy(far)
	s.says("far", complete)
}

// A remote that is wiped while no mirror runs loses nothing either: the copy is what is known of it.
func TestMirror_RemoteLostWhileNobodyLooked(t *testing.T) {
	t.Parallel()
	for _, lineage := range []string{"kept", "lost"} {
		t.Run("lineage-"+lineage, func(t *testing.T) {
			t.Parallel()
			s, far := newSide(t), newRemote(t, "far", 2)
			far.fill()
			s.knows("far", far.ClientConfig())
			name := "one"
			_, stop := s.start(name, nil)
			s.wantCopy(far)
			stop()
			before := s.copies()
			far.Wipe()
			far.config(`{"id":2,"capabilities":{}}`)
			far.node(1)
			if lineage == "lost" {
				name = "two" // it has never seen the remote
			}
			m, _ := s.start(name, nil)
			s.says("far", func(m schema.Mirror) bool { return m.By == name && m.Holding })
			s.always("the copy stands still", func() bool { return cmp.Equal(before, s.copies()) })
			if _, _, err := m.mesh.Guards()["far"].Adopt(t.Context(), "a test"); err != nil {
				t.Fatal(err)
			}
			s.wantCopy(far)
		})
	}
}

// What a remote deletes while no mirror runs goes at the next start, for it is the same store.
func TestMirror_DeletedWhileNobodyLooked(t *testing.T) {
	t.Parallel()
	s, far, _, stop := newCopied(t)
	s.says("far", complete)
	stop()
	far.del(schema.IPsPrefix + "10.2.1.5")
	s.start("one", nil)
	s.wantCopy(far)
}

// Our own store comes back empty: the copy is written again, and nothing of the remote is lost.
func TestMirror_OurStoreIsWiped(t *testing.T) {
	t.Parallel()
	s, far, _, _ := newCopied(t)
	s.Wipe()
	s.wantCopy(far)
	s.says("far", func(m schema.Mirror) bool { return m.Connected })
}

// A namespace that a remote deletes goes one row in a revision: readers hold what goes together.
func TestMirror_DeletesOneByOne(t *testing.T) {
	t.Parallel()
	s, far, _, _ := newCopied(t)
	s.says("far", complete)
	watch := s.client.Etcd().Watch(t.Context(), schema.CachePrefix, clientv3.WithPrefix(), clientv3.WithRev(1))
	far.Commit(far.client, clientv3.OpDelete(schema.IPsPrefix+"10.2.1.5"), clientv3.OpDelete(schema.IPsPrefix+"10.2.1.6"))
	s.wantCopy(far)
	deleted := map[int64]int{}
	for len(deleted) < 2 {
		select {
		case resp := <-watch:
			for _, ev := range resp.Events {
				if ev.Type == clientv3.EventTypeDelete {
					deleted[ev.Kv.ModRevision]++
				}
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("two rows went in revisions %v", deleted)
		}
	}
	for rev, n := range deleted {
		if n != 1 {
			t.Errorf("%d rows went in revision %d", n, rev)
		}
	}
}
