// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// guarded is a store, a guarded watch through the proxy, and owners whose rows are <owner>-<n>.
type guarded struct {
	*kvstoretest.Server
	direct *kvstore.Client
	client *kvstore.Client
	guard  *kvstore.Guard
	table  *state.Table[string, string]
	watch  *kvstore.Watch[string, string]

	stopWatch func()
}

func guardConfig() kvstore.GuardConfig {
	return kvstore.GuardConfig{
		Cluster: "a", Owners: true, Limit: time.Hour, Brief: time.Hour, Heartbeat: time.Minute,
		Follow: kvstoretest.WatchConfig(),
	}
}

func epoch(n byte) string { return strings.Repeat(hex.EncodeToString([]byte{n}), 16) }

// newUnwatched is a store that nobody watches yet: with an epoch, and owners n0, n1, … of so many rows each.
func newUnwatched(t *testing.T, owners, rows int) *guarded {
	t.Helper()
	g := &guarded{Server: plain(t)}
	g.direct = g.Client()
	g.revive(t, 1)
	g.publishAll(owners, rows)
	return g
}

// newGuarded is a store of ten owners that is watched.
func newGuarded(t *testing.T, cfg kvstore.GuardConfig, rows int) *guarded {
	t.Helper()
	g := newUnwatched(t, 10, rows)
	g.start(t, cfg, nil)
	g.wantSynced(t, true)
	return g
}

// revive writes what the operator writes: an epoch and a heartbeat.
func (g *guarded) revive(t *testing.T, n byte) {
	t.Helper()
	value, err := schema.EncodeEpoch(schema.Epoch{ID: epoch(n)})
	if err != nil {
		t.Fatal(err)
	}
	g.Put(g.direct, schema.EpochKey, string(value))
	g.Put(g.direct, schema.HeartbeatKey, string(schema.EncodeTime(time.Now())))
}

func (g *guarded) publish(owner string, rows int) {
	g.Fill(g.direct, kvstoretest.Prefix+owner+"-", rows, "x")
}

func (g *guarded) publishAll(owners, rows int) {
	for n := range owners {
		g.publish(fmt.Sprintf("n%d", n), rows)
	}
}

// confirm says that an owner has all its rows in the store.
func (g *guarded) confirm(t *testing.T, owner string, n byte) {
	t.Helper()
	g.says(t, owner, epoch(n))
}

func (g *guarded) says(t *testing.T, owner, epoch string) {
	t.Helper()
	value, err := schema.Owners().Encode(owner, schema.Owner{Epoch: epoch, Complete: true})
	if err != nil {
		t.Fatal(err)
	}
	g.Put(g.direct, schema.OwnersPrefix+owner, string(value))
}

func (g *guarded) confirmAll(t *testing.T, owners int, n byte) {
	t.Helper()
	for i := range owners {
		g.confirm(t, fmt.Sprintf("n%d", i), n)
	}
}

// begin makes the guard of a client and an empty table.
func (g *guarded) begin(t *testing.T, client *kvstore.Client, cfg kvstore.GuardConfig) {
	g.client = client
	g.guard = kvstore.NewGuard(client, cfg, kvstoretest.Log(t))
	g.table = kvstoretest.Table()
}

// watchOf makes the guarded watch of a prefix.
func (g *guarded) watchOf(t *testing.T, prefix string) {
	wc := kvstoretest.WatchConfig()
	wc.Guard = g.guard
	codec := kvstoretest.Codec()
	codec.Prefix = prefix
	g.watch = kvstore.NewWatch(g.client, codec, g.table, wc, kvstoretest.Log(t))
}

// watchOwners makes the guarded watch of what owners publish.
func (g *guarded) watchOwners(t *testing.T) {
	g.watchOf(t, kvstoretest.Prefix)
	g.watch.OwnedBy(func(k, _ string) string { owner, _, _ := strings.Cut(k, "-"); return owner })
}

// run runs the guard and the watch.
func (g *guarded) run(t *testing.T) (stop func()) {
	stopGuard := kvstoretest.Go(t, g.guard.Run)
	g.stopWatch = kvstoretest.Go(t, g.watch.Run)
	return func() { g.stopWatch(); stopGuard() }
}

func (g *guarded) start(t *testing.T, cfg kvstore.GuardConfig, before func()) (stop func()) {
	t.Helper()
	g.begin(t, kvstoretest.NewClient(t, g.ProxyConfig()), cfg)
	g.watchOwners(t)
	if before != nil {
		before()
	}
	return g.run(t)
}

// wantEpoch waits until the guard has read of an epoch.
func (g *guarded) wantEpoch(t *testing.T, n byte) {
	t.Helper()
	kvstoretest.Eventually(t, func() string {
		if got := g.guard.Status().Epoch; got != epoch(n) {
			return "epoch is " + got
		}
		return ""
	})
}

// adopt gives up what is held, which must be so many rows, for everybody.
func (g *guarded) adopt(t *testing.T, rows int) {
	t.Helper()
	if d, all, err := g.guard.Adopt(t.Context(), "test"); err != nil || !all || d.Rows != rows {
		t.Fatalf("adopt: %+v, %v, %v", d, all, err)
	}
}

func (g *guarded) wantSynced(t *testing.T, want bool) {
	t.Helper()
	kvstoretest.Eventually(t, func() string {
		if holding, _ := g.guard.Holding(); g.table.Synced() != want || holding == want || !g.watch.Status().Connected {
			return fmt.Sprintf("synced %v, holding %v, want %v: %+v", g.table.Synced(), holding, want, g.guard.Status())
		}
		return ""
	})
}

func (g *guarded) wantHeld(t *testing.T, want int) {
	t.Helper()
	kvstoretest.Eventually(t, func() string {
		if got := g.guard.Status().Hold.Rows; got != want {
			return fmt.Sprintf("%d rows held, want %d: %+v", got, want, g.guard.Status())
		}
		return ""
	})
}

func (g *guarded) wantEqual(t *testing.T) {
	t.Helper()
	kvstoretest.WantRows(t, g.table, kvstoretest.Stored(t, g.direct))
}
