// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// peer is the store of another cluster, with the rights that it grants us, and what a mesh has of it:
// one guard and one table, and a client and a watch for each session.
type peer struct {
	*guarded
	cfg  kvstore.Config
	root *kvstore.Client
	weft bool
}

func newPeer(t *testing.T, weft bool, cfg kvstore.GuardConfig) *peer {
	t.Helper()
	srv, root := rooted(t)
	p := &peer{guarded: &guarded{Server: srv, direct: root}, cfg: srv.UserConfig(kvstore.UserRemote), root: root, weft: weft}
	p.grant(t)
	p.begin(t, nil, cfg)
	return p
}

// grant gives the store the rights that its kind of cluster has. One that was wiped has none.
func (p *peer) grant(t *testing.T) {
	t.Helper()
	etcd := p.root.Etcd()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	read := func(prefix string) {
		t.Helper()
		must(etcd.RoleGrantPermission(t.Context(), "remote", prefix, clientv3.GetPrefixRangeEnd(prefix), 0))
	}
	if p.weft {
		must(kvstore.Init(t.Context(), p.root, kvstore.InitConfig{Cluster: "b"}))
		read(kvstoretest.Prefix)
		return
	}
	for _, name := range []string{"root", "remote"} {
		if name != "root" {
			must(etcd.RoleAdd(t.Context(), name))
		}
		must(etcd.UserAddWithOptions(t.Context(), name, "", &clientv3.UserAddOptions{NoPassword: true}))
		must(etcd.UserGrantRole(t.Context(), name, name))
	}
	read(schema.HeartbeatReadPrefix)
	read(schema.StatePrefix)
	read(kvstoretest.Prefix)
	must(etcd.AuthEnable(t.Context()))
}

// session connects until the returned function is called.
func (p *peer) session(t *testing.T) (end func()) {
	t.Helper()
	c, err := kvstore.New(p.cfg, kvstoretest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	p.client = c
	p.guard.Use(c)
	p.watchOwners(t)
	stop := p.run(t)
	return func() {
		stop()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// epoch is the one that the store has.
func (p *peer) epoch(t *testing.T) string {
	t.Helper()
	kv, _, err := p.root.Get(t.Context(), schema.EpochKey)
	if err != nil {
		t.Fatal(err)
	}
	e, err := schema.DecodeEpoch(kv.Value)
	if err != nil {
		t.Fatal(err)
	}
	return e.ID
}

func (p *peer) confirmThree(t *testing.T) {
	t.Helper()
	for n := range 3 {
		p.says(t, fmt.Sprintf("n%d", n), p.epoch(t))
	}
}

// TestGuard_Remote: one guard over the sessions with another cluster, by the rights of its remotes,
// of weft's and of Cilium's. Nothing is written there.
func TestGuard_Remote(t *testing.T) {
	t.Parallel()
	for _, weft := range []bool{true, false} {
		t.Run(fmt.Sprintf("weft-%v", weft), func(t *testing.T) {
			t.Parallel()
			cfg := guardConfig()
			cfg.Cluster, cfg.ReadOnly, cfg.File = "b", true, filepath.Join(t.TempDir(), "lineage", "b")
			if !weft {
				cfg.Limit = 3 * time.Second
			}
			p := newPeer(t, weft, cfg)
			beat := func() { p.Put(p.root, schema.HeartbeatKey, string(schema.EncodeTime(time.Now()))) }
			beat()
			p.publishAll(3, 5)
			end := p.session(t)
			p.wantSynced(t, true)
			p.wantEqual(t)
			if got := p.guard.Status().Owners; got != weft {
				t.Fatalf("owners are expected: %v", got)
			}
			end()
			if holding, _ := p.guard.Holding(); holding {
				t.Fatal("the end of a session is a hold")
			}

			// What was deleted between two sessions was deleted.
			p.Delete(p.root, kvstoretest.Prefix+"n0-000000")
			end = p.session(t)
			p.wantSynced(t, true)
			p.wantEqual(t)

			p.Wipe()
			p.grant(t)
			p.wantHeld(t, 14)
			end()
			if st := p.guard.Status(); !st.Hold.Holding || st.Hold.Rows != 14 || st.Alive || len(p.guard.Held(100)) != 14 {
				t.Fatalf("between sessions: %+v", st)
			}
			p.publish("n1", 5)
			end = p.session(t)
			p.wantHeld(t, 9)
			p.wantSynced(t, false)
			if _, err := p.guard.Reseed(t.Context()); !errors.Is(err, kvstore.ErrReadOnly) {
				t.Fatalf("reseed: %v", err)
			}
			beat() // for a Cilium cluster the limit begins
			if weft {
				p.confirmThree(t)
			}
			p.wantSynced(t, true)
			p.wantEqual(t)

			p.Wipe()
			p.wantHeld(t, 5)
			end()
			end = p.session(t)
			p.wantHeld(t, 5)
			if d, all, err := p.guard.Adopt(t.Context(), "test"); err != nil || all || d.Rows != 5 {
				t.Fatalf("adopt: %+v, %v, %v", d, all, err)
			}
			p.wantSynced(t, true)
			p.wantEqual(t)

			p.publish("n0", 5)
			p.wantEqual(t)
			p.Wipe()
			p.wantHeld(t, 5)
			end()
			p.table.Drop(kvstoretest.Source)
			if err := p.guard.Forget(); err != nil {
				t.Fatal(err)
			}
			if st := p.guard.Status(); st.Hold.Holding || st.Hold.Rows != 0 || st.Lineage != "" {
				t.Fatalf("forgotten: %+v", st)
			}
			if left, err := os.ReadDir(filepath.Dir(cfg.File)); err != nil || len(left) > 0 {
				t.Fatalf("left behind: %v, %v", left, err)
			}
			p.table = state.NewTable[string]("test", state.Equal[string])
			defer p.session(t)()
			p.wantSynced(t, true)
			p.wantEqual(t)
		})
	}
}
