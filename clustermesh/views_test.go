// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// copied is a copy of cluster far, id 2, in our own store.
type copied struct{ *cluster }

var farCopy = schema.Scope{Cluster: "far", ClusterID: 2, Cached: true}

// newCopied is a bench with an own store, which has nothing of far yet.
func newCopied(t *testing.T) (*bench, copied) {
	t.Helper()
	own := newCluster(t, "own", 1)
	own.revive("a")
	b := newBench(t, func(c *Config) { c.Own, c.Follow = own.Client(), kvstoretest.WatchConfig() })
	return b, copied{&cluster{own.Server, t, "far", 2, own.client}}
}

// complete says that the copy is all there is: config, marks, and the mirror's row.
func (c copied) complete() {
	c.t.Helper()
	c.config(schema.ClusterConfig{ID: 2, SyncedCanaries: true, Cached: true})
	for _, r := range resources() {
		c.put(schema.SyncedKey("far", r, true), "2026-01-02T15:04:05Z")
	}
	c.says(schema.Mirror{ID: 2, Connected: true, Confirmed: time.Now(), Written: time.Now(), By: "own-1", Complete: true})
}

// says writes the mirror's row, in the epoch of the store.
func (c copied) says(m schema.Mirror) {
	c.t.Helper()
	m.Epoch = strings.Repeat("a", 32)
	_, value := encoded(c.t, schema.Mirrors(), "far", m)
	c.put(schema.MirrorsPrefix+"far", value)
}

// reads waits until far is read from the copy, or from its own store, and is ready.
func (b *bench) reads(copied bool) RemoteStatus {
	b.t.Helper()
	kvstoretest.Eventually(b.t, func() string {
		st := b.remote("far")
		if st.Phase != PhaseReady || (st.Copy != nil) != copied || !b.tables.IPs.SyncedBy(SourceOf("far")) {
			return fmt.Sprintf("%+v", st)
		}
		return ""
	})
	return b.remote("far")
}

// A remote that nobody reaches is there by its copy, with the ages that the mirror tells.
func TestMesh_ReadsTheCopy(t *testing.T) {
	t.Parallel()
	b, c := newCopied(t)
	c.fillAs(farCopy, 2)
	c.complete()
	b.add("far", kvstore.Config{Endpoints: []string{"http://127.0.0.1:1"}})
	b.wantRows("far", one)
	st := b.reads(true)
	if !st.Connected || st.ID != 2 || st.Copy.By != "own-1" || !st.Config.Cached {
		t.Errorf("status %+v, copy %+v", st, st.Copy)
	}
	c.ip(farCopy, "10.2.0.6/32", "172.16.2.1", 2<<16+5)
	c.del(schema.CachedServicesPrefix + "far/default/web")
	b.wantRows("far", [4]int{1, 2, 1, 0})

	// The mirror does not reach it: the rows stay, as old as it says. Its clock is another.
	written := time.Now().Add(-5 * time.Hour)
	c.says(schema.Mirror{
		ID: 2, Reason: "endpoint: unreachable", Confirmed: written.Add(-10 * time.Minute), Heartbeat: written.Add(-12 * time.Minute),
		Written: written, By: "own-2",
	})
	b.phase("far", PhaseAway, "own-2 does not reach it: endpoint: unreachable")
	st = b.remote("far")
	for what, age := range map[string]time.Duration{
		"copy": time.Since(st.Copy.Confirmed), "rows": time.Since(st.Resources[0].Confirmed), "heartbeat": time.Since(st.Heartbeat) - 2*time.Minute,
	} {
		if age < 10*time.Minute || age > 11*time.Minute {
			t.Errorf("the %s is %v old, want ten minutes", what, age)
		}
	}
	if got := b.rows("far"); got != [4]int{1, 2, 1, 0} || st.Connected {
		t.Errorf("rows %v, connected %v", got, st.Connected)
	}
	c.says(schema.Mirror{ID: 2, Connected: true, Holding: true, Confirmed: time.Now(), Written: time.Now(), By: "own-2"})
	b.phase("far", PhaseReady, "its copy in ours stands still")
}

// What the mirror said before anybody listened may be long ago: then its clock has to do.
func TestMesh_MirrorThatIsSilent(t *testing.T) {
	t.Parallel()
	b, c := newCopied(t)
	c.fillAs(farCopy, 2)
	c.complete()
	c.says(schema.Mirror{ID: 2, Connected: true, Confirmed: time.Now().Add(-time.Hour), Written: time.Now().Add(-time.Hour), By: "own-1"})
	stop := b.stop
	stop()
	again := newBench(t, func(cfg *Config) { cfg.Own, cfg.Follow = c.Client(), kvstoretest.WatchConfig() })
	again.add("far", kvstore.Config{Endpoints: []string{"http://127.0.0.1:1"}})
	again.wantRows("far", one)
	again.phase("far", PhaseAway, "has said nothing of its copy for 1h0m")
}

// A copy that becomes complete is read in place of the remote, and the remote where the copy goes: no row
// changes by either.
func TestMesh_SwitchesWithoutAChange(t *testing.T) {
	t.Parallel()
	b, c := newCopied(t)
	far := newCluster(t, "far", 2)
	far.fill(2)
	b.add("far", far.ClientConfig())
	b.wantRows("far", one)
	b.reads(false)
	revisions := func() [4]uint64 {
		return [4]uint64{b.tables.Nodes.Revision(), b.tables.IPs.Revision(), b.tables.Identities.Revision(), b.tables.Services.Revision()}
	}
	before := revisions()
	c.fillAs(farCopy, 2)
	c.config(schema.ClusterConfig{ID: 2, SyncedCanaries: true, Cached: true})
	b.always("a copy without marks is not read", func() bool { return b.remote("far").Copy == nil })
	c.complete()
	b.reads(true)
	c.del(schema.ClusterConfigPrefix + "far")
	b.reads(false)
	c.complete()
	b.reads(true)
	if diff := cmp.Diff(before, revisions()); diff != "" {
		t.Errorf("rows changed (-before +after):\n%s", diff)
	}
	if held := b.remote("far").Hold.Rows; held != 0 {
		t.Errorf("%d rows are held", held)
	}
}

// What a copy lacks of what the remote had stays until the mirror has said that it is complete.
func TestMesh_CopyThatLags(t *testing.T) {
	t.Parallel()
	b, c := newCopied(t)
	far := newCluster(t, "far", 2)
	far.fill(2)
	far.ip(far.scope(), "10.2.0.9/32", "172.16.2.1", 2<<16+5)
	b.add("far", far.ClientConfig())
	b.wantRows("far", [4]int{1, 2, 1, 1})
	b.reads(false)
	c.fillAs(farCopy, 2)
	c.complete()
	kvstoretest.Eventually(t, func() string {
		if st := b.remote("far"); st.Copy == nil || st.Hold.Rows != 1 {
			return fmt.Sprintf("copy %v, hold %+v", st.Copy, st.Hold)
		}
		return ""
	})
	c.says(schema.Mirror{ID: 2, Connected: true, Confirmed: time.Now(), Written: time.Now(), By: "own-1"})
	b.always("the row stays", func() bool { return b.rows("far") == [4]int{1, 2, 1, 1} })
	c.says(schema.Mirror{ID: 2, Connected: true, Confirmed: time.Now(), Written: time.Now(), By: "own-1", Complete: true})
	b.wantRows("far", one)
	b.reads(true)
}

// The mirror deletes rows one by one; what goes in one revision was deleted by hand, and comes back.
func TestMesh_CopyDeletedByHand(t *testing.T) {
	t.Parallel()
	b, c := newCopied(t)
	c.fillAs(farCopy, 2)
	c.ip(farCopy, "10.2.0.6/32", "172.16.2.1", 2<<16+5)
	c.ip(farCopy, "10.2.0.7/32", "172.16.2.1", 2<<16+5)
	c.complete()
	b.add("far", kvstore.Config{Endpoints: []string{"http://127.0.0.1:1"}})
	b.wantRows("far", [4]int{1, 3, 1, 1})
	b.reads(true)
	c.del(schema.CachedIPsPrefix + "far/10.2.0.7")
	b.wantRows("far", [4]int{1, 2, 1, 1})
	c.Commit(c.client, clientv3.OpDelete(schema.CachedIPsPrefix, clientv3.WithPrefix()))
	kvstoretest.Eventually(t, func() string {
		if h := b.remote("far").Hold; h.Rows != 2 {
			return fmt.Sprintf("hold %+v", h)
		}
		return ""
	})
	for _, a := range []string{"10.2.0.5", "10.2.0.6"} {
		c.ip(farCopy, a+"/32", "172.16.2.1", 2<<16+5)
	}
	b.held("far", 0)
	b.wantRows("far", [4]int{1, 2, 1, 1})
}

// A remote is forgotten while it is away, and comes back as a new one.
func TestMesh_Forget(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "far", 2)
	c.fill(2)
	b := newBench(t, nil)
	b.add("far", c.ClientConfig())
	b.wantRows("far", one)
	b.phase("far", PhaseReady, "")
	b.mesh.Forget("far")
	b.always("one that is connected is not forgotten", func() bool { return b.rows("far") == one })
	c.Kill()
	b.phase("far", PhaseAway, "")
	b.mesh.Forget("far")
	b.wantRows("far", [4]int{})
	c.Restart()
	b.wantRows("far", one)
	b.phase("far", PhaseReady, "")
}
