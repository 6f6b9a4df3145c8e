// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// revive writes what the operator of a weft cluster writes when its store is new.
func (c *cluster) revive(epoch string) {
	c.t.Helper()
	c.config(schema.ClusterConfig{ID: c.id})
	value, err := schema.EncodeEpoch(schema.Epoch{ID: strings.Repeat(epoch, 32)})
	if err != nil {
		c.t.Fatal(err)
	}
	c.put(schema.EpochKey, string(value))
	c.beat()
}

func (c *cluster) beat() {
	c.t.Helper()
	c.put(schema.HeartbeatKey, string(schema.EncodeTime(time.Now())))
}

// says is the word of an owner that all its rows are there.
func (c *cluster) says(owner, epoch string) {
	c.t.Helper()
	value, err := schema.Owners().Encode(owner, schema.Owner{Epoch: strings.Repeat(epoch, 32), Complete: true})
	if err != nil {
		c.t.Fatal(err)
	}
	c.put(schema.OwnersPrefix+owner, string(value))
}

// sayAll is the word of every owner of a populated cluster.
func (c *cluster) sayAll(epoch string) {
	c.t.Helper()
	for _, owner := range []string{"n1", "n2", "n3", schema.OperatorOwner} {
		c.says(owner, epoch)
	}
}

// member writes the rows of a node: itself and some addresses.
func (c *cluster) member(n, addresses int) {
	c.t.Helper()
	host := fmt.Sprintf("172.16.2.%d", n)
	c.node(c.scope(), fmt.Sprintf("n%d", n), host, fmt.Sprintf("10.2.%d.0/24", n))
	for i := range addresses {
		c.ip(c.scope(), fmt.Sprintf("10.2.%d.%d/32", n, 5+i), host, 2<<16+5)
	}
}

// populate is a cluster with three nodes of two addresses each, an identity and a service.
func (c *cluster) populate() {
	c.t.Helper()
	for n := range 3 {
		c.member(n+1, 2)
	}
	c.identity(c.scope(), 2<<16+5)
	c.service(c.scope(), "web", "10.2.1.5")
}

var populated = [4]int{3, 6, 1, 1}

// newPopulated is a bench that has mirrored a populated weft cluster.
func newPopulated(t *testing.T, change func(*Config)) (*bench, *cluster) {
	t.Helper()
	c := newCluster(t, "far", 2)
	c.revive("1")
	c.populate()
	c.sayAll("1")
	return c.mirrored(change), c
}

// mirrored is a bench that has mirrored a populated cluster.
func (c *cluster) mirrored(change func(*Config)) *bench {
	c.t.Helper()
	b := newBench(c.t, change)
	b.add("far", c.ClientConfig())
	b.wantRows("far", populated)
	b.held("far", 0)
	return b
}

// held waits until so many rows of a remote are held; its sources are synced where there are none.
func (b *bench) held(name string, want int) {
	b.t.Helper()
	kvstoretest.Eventually(b.t, func() string {
		h := b.remote(name).Hold
		if h.Rows != want || h.Holding != (want > 0) || b.tables.IPs.SyncedBy(SourceOf(name)) != (want == 0) {
			return fmt.Sprintf("held %+v, want %d rows; synced %v", h, want, b.tables.IPs.SyncedBy(SourceOf(name)))
		}
		return ""
	})
}

// TestMesh_StoreOfARemoteIsLost: a remote's store is wiped, wiped and overtaken, rolled back, or emptied by
// hand. No row goes before its owner has spoken, and what an owner deletes goes at once.
func TestMesh_StoreOfARemoteIsLost(t *testing.T) {
	wipe := func(c *cluster) { c.Wipe() }
	start := func(c *cluster) string { return c.Config().Dir + "-start" }
	for _, s := range []struct {
		name string
		lose func(c *cluster)
		held int
	}{
		{"wiped", wipe, 11},
		{"overtaken", func(c *cluster) { wipe(c); c.Burn(c.client, 300) }, 11},
		{"rolled-back", func(c *cluster) { c.RollBack(start(c)) }, 9},
		{"emptied-by-hand", func(c *cluster) {
			c.Commit(c.client, clientv3.OpDelete("cilium/", clientv3.WithPrefix()))
		}, 11},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, "far", 2)
			c.revive("1")
			c.identity(c.scope(), 2<<16+5)
			c.service(c.scope(), "web", "10.2.1.5")
			c.Save(start(c))
			c.populate()
			c.sayAll("1")
			b := c.mirrored(nil)

			s.lose(c)
			b.held("far", s.held)
			if got := b.rows("far"); got != populated {
				t.Fatalf("rows %v, want %v", got, populated)
			}
			b.phase("far", PhaseReady, "")
			if h := b.remote("far").Hold; h.Unconfirmed < 3 {
				t.Errorf("hold %+v", h)
			}
			if _, err := b.mesh.Guards()["far"].Reseed(t.Context()); !errors.Is(err, kvstore.ErrReadOnly) {
				t.Errorf("reseed: %v", err)
			}

			// The first node is back with an address less.
			c.revive("2")
			c.member(1, 1)
			c.says("n1", "2")
			b.wantRows("far", [4]int{3, 5, 1, 1})
			// What it deletes now is gone at once.
			c.del(c.ip(c.scope(), "10.2.1.5/32", "172.16.2.1", 2<<16+5))
			b.wantRows("far", [4]int{3, 4, 1, 1})
			c.member(2, 2)
			c.member(3, 2)
			c.identity(c.scope(), 2<<16+5)
			for _, owner := range []string{"n2", "n3"} {
				c.says(owner, "2")
			}
			if s.held == 11 {
				b.held("far", 1)                  // the service
				c.says(schema.OperatorOwner, "2") // … which is no more
				b.wantRows("far", [4]int{3, 4, 1, 0})
			}
			b.held("far", 0)
		})
	}
}

// TestMesh_DrainInHold: a remote that is removed, or that calls itself by another id, loses its rows,
// held or not, and nothing is remembered of its store.
func TestMesh_DrainInHold(t *testing.T) {
	t.Parallel()
	b, c := newPopulated(t, nil)
	c.Wipe()
	b.held("far", 11)
	b.remove("far")
	b.wantRows("far", [4]int{})
	kvstoretest.Eventually(t, func() string {
		left, err := os.ReadDir(b.mesh.cfg.Lineage)
		if err != nil && !errors.Is(err, os.ErrNotExist) || len(left) > 0 || len(b.mesh.Guards()) > 0 {
			return fmt.Sprintf("left behind: %v, %v", left, err)
		}
		return ""
	})
	c.revive("2")
	c.member(1, 1)
	b.add("far", c.ClientConfig())
	b.wantRows("far", [4]int{1, 1, 0, 0})
	b.held("far", 0)

	c.Wipe()
	b.held("far", 2)
	c.id = 3
	c.revive("3")
	b.wantRows("far", [4]int{})
	c.fill(2)
	b.wantRows("far", one)
	b.held("far", 0)
	if st := b.remote("far"); st.ID != 3 {
		t.Errorf("id %d", st.ID)
	}
}

// TestMesh_AdoptForThisNode: a person gives up for one node what is held of a remote.
func TestMesh_AdoptForThisNode(t *testing.T) {
	t.Parallel()
	b, c := newPopulated(t, nil)
	c.Wipe()
	c.revive("2")
	c.member(1, 2)
	b.held("far", 8)
	done, all, err := b.mesh.Guards()["far"].Adopt(t.Context(), "test")
	if err != nil || all || done.Rows != 8 {
		t.Fatalf("adopt: %+v, %v, %v", done, all, err)
	}
	b.wantRows("far", [4]int{1, 2, 0, 0})
	b.held("far", 0)
}

// TestMesh_CiliumStoreIsLost: a cluster without owners' rows. Its rows are held for the limit, which
// begins with its heartbeat.
func TestMesh_CiliumStoreIsLost(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "far", 2)
	c.beat()
	c.populate()
	b := c.mirrored(func(cfg *Config) { cfg.Guard.Limit, cfg.Guard.Heartbeat = time.Second, 300*time.Millisecond })
	c.Wipe()
	b.held("far", 11)
	c.member(1, 2)
	b.held("far", 8)
	b.always("rows stay without a heartbeat", func() bool { return b.rows("far") == populated })
	kvstoretest.Eventually(t, func() string {
		c.beat()
		if got := b.rows("far"); got != [4]int{1, 2, 0, 0} {
			return fmt.Sprintf("rows %v", got)
		}
		return ""
	})
	b.held("far", 0)
}

// remembered is what an earlier mesh had in its tables.
type remembered struct {
	id   uint32
	rows map[schema.Resource][]kvstore.KV
}

func (m remembered) Clusters() []string                   { return nil } // a file names it
func (m remembered) ID(string) uint32                     { return m.id }
func (m remembered) Restore(string, schema.Resource) int  { return 0 }
func (m remembered) Listed(string, schema.Resource, bool) {}
func (m remembered) Rows(_ string, r schema.Resource) (iter.Seq[kvstore.KV], time.Time) {
	return slices.Values(m.rows[r]), time.Now()
}

// remember is what a bench has of a remote.
func (b *bench) remember(name string, s schema.Scope) remembered {
	m := remembered{s.ClusterID, map[schema.Resource][]kvstore.KV{}}
	for row := range b.tables.Nodes.All() {
		keep(b.t, m.rows, schema.ResourceNodes, schema.Nodes(s), row.Key, row.Value)
	}
	for row := range b.tables.IPs.All() {
		keep(b.t, m.rows, schema.ResourceIPs, schema.IPs(s), row.Key, row.Value)
	}
	for row := range b.tables.Identities.All() {
		keep(b.t, m.rows, schema.ResourceIdentities, schema.Identities(s), row.Key, row.Value)
	}
	for row := range b.tables.Services.All() {
		keep(b.t, m.rows, schema.ResourceServices, schema.Services(s), row.Key, row.Value)
	}
	return m
}

func keep[K comparable, V any](t *testing.T, rows map[schema.Resource][]kvstore.KV, r schema.Resource, codec schema.Codec[K, V], k K, v V) {
	key, value := encoded(t, codec, k, v)
	rows[r] = append(rows[r], kvstore.KV{Key: strings.TrimPrefix(key, codec.Prefix), Value: []byte(value), ModRevision: 1})
}

// TestMesh_RestartInHold: a mesh that begins anew while a remote's rows are held holds them on, and so
// does one that was not there when the store was lost, also where the layout is another one since.
func TestMesh_RestartInHold(t *testing.T) {
	for _, s := range []struct {
		name         string
		cached, down bool
	}{{"in-hold", false, false}, {"down-meanwhile", false, true}, {"cached-meanwhile", true, true}} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			b, c := newPopulated(t, nil)
			lineage := b.mesh.cfg.Lineage
			if !s.down {
				c.Wipe()
				b.held("far", 11)
			}
			kept := b.remember("far", c.scope())
			b.stop()
			if s.down {
				c.Wipe()
			}
			if _, err := os.Stat(filepath.Join(lineage, "far")); err != nil {
				t.Fatal(err)
			}
			c.revive("2")
			if s.cached {
				c.config(schema.ClusterConfig{ID: 2, Cached: true})
			}
			b = newBench(t, func(cfg *Config) { cfg.Kept, cfg.Lineage = kept, lineage })
			b.add("far", c.ClientConfig())
			b.held("far", 11)
			b.wantRows("far", populated)
			if s.cached {
				return
			}
			c.member(1, 1)
			c.says("n1", "2")
			b.wantRows("far", [4]int{3, 5, 1, 1})
			b.held("far", 8)
		})
	}
}

// TestMesh_DeletedWhileDown: what owners deleted while nobody looked is gone, whatever was kept.
func TestMesh_DeletedWhileDown(t *testing.T) {
	t.Parallel()
	b, c := newPopulated(t, nil)
	kept, lineage := b.remember("far", c.scope()), b.mesh.cfg.Lineage
	b.stop()
	c.del(c.ip(c.scope(), "10.2.1.5/32", "172.16.2.1", 2<<16+5))
	c.del(c.service(c.scope(), "web"))
	b = newBench(t, func(cfg *Config) { cfg.Kept, cfg.Lineage = kept, lineage })
	b.add("far", c.ClientConfig())
	b.wantRows("far", [4]int{3, 5, 1, 0})
	b.held("far", 0)
	if row, ok := b.tables.IPs.Get(schema.IPKey{Cluster: "far", Prefix: netip.MustParsePrefix("10.2.1.5/32")}); ok {
		t.Errorf("row %+v", row)
	}
}
