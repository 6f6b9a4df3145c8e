// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// newNamed is a bench without a directory, whose own store has a copy of far.
func newNamed(t *testing.T, change func(*Config)) (*bench, copied) {
	t.Helper()
	own := newCluster(t, "own", 1)
	own.revive("a")
	c := copied{&cluster{own.Server, t, "far", 2, own.client}}
	c.fillAs(farCopy, 2)
	c.complete()
	b := newBench(t, func(cfg *Config) {
		cfg.Dir, cfg.Own, cfg.Follow = "", own.Client(), kvstoretest.WatchConfig()
		if change != nil {
			change(cfg)
		}
	})
	return b, c
}

// going is what the mirror says of a copy that it is about to take away.
func going() schema.Mirror {
	return schema.Mirror{ID: 2, Written: time.Now(), By: "own-1", Removed: time.Now()}
}

// drain takes the copy away, as the mirror and a wiped store do: its row last.
func (c copied) drain() {
	c.t.Helper()
	c.del(schema.ClusterConfigPrefix + "far")
	c.Commit(c.client, clientv3.OpDelete(schema.SyncedPrefix, clientv3.WithPrefix()))
	c.Commit(c.client, clientv3.OpDelete(schema.CachePrefix, clientv3.WithPrefix()))
	c.del(schema.MirrorsPrefix + "far")
}

// noRemote waits until nothing is known of far.
func (b *bench) noRemote() {
	b.t.Helper()
	b.wantRows("far", [4]int{})
	kvstoretest.Eventually(b.t, func() string {
		if n := len(b.mesh.Status().Remotes); n > 0 {
			return fmt.Sprintf("%d remotes", n)
		}
		return ""
	})
}

// A remote that no file names is one by its copy, as long as that is not taken away on purpose.
func TestMesh_NamedByItsCopy(t *testing.T) {
	t.Parallel()
	b, c := newNamed(t, nil)
	b.wantRows("far", one)
	b.reads(true)
	c.says(going())
	b.always("it stays for as long as its copy", func() bool { return b.rows("far") == one })
	c.drain()
	b.noRemote()

	// It comes back, and what was said of the one before does not count.
	c.fillAs(farCopy, 2)
	c.complete()
	b.wantRows("far", one)
	b.reads(true)
	c.drain()
	b.phase("far", PhaseConnecting, "our own store has no complete copy of it")
	if !b.remote("far").NoFile {
		t.Error("it has a file")
	}
	b.always("a copy that is lost takes nothing", func() bool { return b.rows("far") == one })
	c.fillAs(farCopy, 2)
	c.complete()
	b.reads(true)
	b.wantRows("far", one)

	// Somebody has it forgotten.
	c.drain()
	_, value := encoded(t, schema.Forgets(), "far", schema.Forget{By: "me", At: time.Now(), Done: time.Now()})
	c.put(schema.ForgetPrefix+"far", value)
	b.noRemote()
}

// A copy that is going makes no remote.
func TestMesh_CopiesThatNameNobody(t *testing.T) {
	t.Parallel()
	b, c := newCopied(t)
	c.fillAs(farCopy, 2)
	c.complete()
	b.reads(true) // there is no file
	c.says(going())
	c.del(schema.MirrorsPrefix + "far")
	c.del(schema.ClusterConfigPrefix + "far")
	b.noRemote()
	c.says(going())
	kvstoretest.Eventually(t, func() string {
		if b.mesh.views.copyOf("far").By == "" {
			return "not heard"
		}
		return ""
	})
	c.config(schema.ClusterConfig{ID: 2, SyncedCanaries: true, Cached: true})
	b.always("one that is going", func() bool { return len(b.mesh.Status().Remotes) == 0 })
}

// A remote that only a copy of Cilium's mirror names, which speaks of nothing, goes as that takes the copy
// away: the cluster-config first, and all else minutes later. A store that lost all of it says nothing.
func TestMesh_NamedByACopyOfCilium(t *testing.T) {
	t.Parallel()
	b, c := newCopied(t)
	mirrored := func() {
		c.fillAs(farCopy, 2)
		c.complete()
		c.del(schema.MirrorsPrefix + "far")
		b.wantRows("far", one)
		b.reads(true)
	}
	mirrored()
	if !b.remote("far").NoFile {
		t.Error("it has a file")
	}
	all := []clientv3.Op{
		clientv3.OpDelete(schema.SyncedPrefix, clientv3.WithPrefix()), clientv3.OpDelete(schema.CachePrefix, clientv3.WithPrefix()),
		clientv3.OpDelete(schema.ClusterConfigPrefix + "far"),
	}
	c.Commit(c.client, all...)
	b.phase("far", PhaseConnecting, "our own store has no complete copy of it")
	b.always("a copy that is lost takes nothing", func() bool { return b.rows("far") == one })
	mirrored()

	c.del(schema.ClusterConfigPrefix + "far")
	b.noRemote()
	c.Commit(c.client, all...)
	b.always("it is gone", func() bool { return len(b.mesh.Status().Remotes) == 0 })
	mirrored()
}

// Who removes the file of a remote does not wait for its copy; a file that comes back is followed.
func TestMesh_FileRemovedBesideTheCopy(t *testing.T) {
	t.Parallel()
	b, c := newCopied(t)
	far := newCluster(t, "far", 2)
	far.fill(2)
	c.fillAs(farCopy, 2)
	c.complete()
	b.reads(true)
	b.add("far", far.ClientConfig())
	kvstoretest.Eventually(t, func() string {
		if st := b.remote("far"); len(st.Endpoints) == 0 || st.Phase != PhaseReady {
			return fmt.Sprintf("%+v", st)
		}
		return ""
	})
	b.remove("far")
	b.noRemote()
	b.always("the copy does not bring it back", func() bool { return len(b.mesh.Status().Remotes) == 0 })
	b.add("far", far.ClientConfig())
	b.reads(true)
	b.wantRows("far", one)
}

// What an earlier run knew by a copy is in force until our store is known to be the one that has no copy.
func TestMesh_EarlierRunKnewACopy(t *testing.T) {
	t.Parallel()
	var settled atomic.Bool
	own := newCluster(t, "own", 1)
	b, _ := newMemory(t, 2, func(cfg *Config) {
		cfg.Dir, cfg.Own, cfg.Follow = "", own.Client(), kvstoretest.WatchConfig()
		cfg.Settled = settled.Load
	})
	b.wantRows("far", one)
	b.phase("far", PhaseConnecting, "our own store has no complete copy of it")
	b.always("it stays in a hold", func() bool { return b.rows("far") == one })
	if b.tables.IPs.Synced() {
		t.Error("what is to be pruned is known")
	}
	settled.Store(true)
	b.noRemote()
}

// Of one that has joined the copy may be lost together with the mirror that would bring it back: that our
// store has settled takes nothing away.
func TestMesh_EarlierRunKnewACopyOfAPeer(t *testing.T) {
	t.Parallel()
	own := newCluster(t, "own", 1)
	own.peer("far", schema.PeerJoined, 2)
	b, _ := newMemory(t, 2, func(cfg *Config) {
		cfg.Dir, cfg.Own, cfg.Peers, cfg.Follow = "", own.Client(), own.Client(), kvstoretest.WatchConfig()
	})
	b.wantRows("far", one)
	b.phase("far", PhaseConnecting, "our own store has no complete copy of it")
	b.pinned("far", 2)
	b.always("it stays", func() bool { return b.rows("far") == one })
	own.peer("far", schema.PeerLeft, 2)
	b.noRemote()
}

// An agent that was away while a copy was taken away hears of it by what is left: the decision to forget
// the cluster, before or after the end of its row, or that it has left.
func TestMesh_CopyWentUnseen(t *testing.T) {
	t.Parallel()
	t.Run("forgotten", func(t *testing.T) {
		b, c := newNamed(t, nil)
		b.wantRows("far", one)
		c.put(encoded(t, schema.Forgets(), "far", schema.Forget{At: time.Now(), Done: time.Now().Add(time.Minute), By: "somebody"}))
		b.always("it stays while its row stands", func() bool { return b.rows("far") == one })
		c.drain()
		b.noRemote()
	})
	t.Run("left", func(t *testing.T) {
		b, c := newNamed(t, func(cfg *Config) { cfg.Peers = cfg.Own })
		b.wantRows("far", one)
		// Long ago: it was configured anew since.
		left := schema.Peer{State: schema.PeerLeft, Since: time.Now().Add(-time.Hour), ID: 2, MaxClusters: 255, Root: "root"}
		c.put(encoded(t, schema.Peers(), "far", left))
		c.drain()
		b.always("it stays", func() bool { return b.rows("far") == one })
		left.Since = time.Now().Add(time.Second)
		c.put(encoded(t, schema.Peers(), "far", left))
		b.noRemote()
	})
}

// Our own store does not answer at the start: what was kept is in force.
func TestMesh_EarlierRunKnewACopyAndOurStoreIsAway(t *testing.T) {
	t.Parallel()
	away := kvstoretest.NewClient(t, kvstore.Config{Endpoints: []string{"http://127.0.0.1:1"}})
	b, _ := newMemory(t, 2, func(cfg *Config) {
		cfg.Dir, cfg.Own, cfg.Follow = "", away, kvstoretest.WatchConfig()
	})
	b.wantRows("far", one)
	b.always("it stays", func() bool { return b.rows("far") == one })
}
