// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/internal/loopback"
	"github.com/weft-net/weft/kvstore/embedded"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// TestGuard_AsksAStoreThatIsAway: of a store that does not answer nobody knows whose lease ended. It is
// waited for, and what it says then counts.
func TestGuard_AsksAStoreThatIsAway(t *testing.T) {
	t.Parallel()
	s, err := embedded.Start(t.Context(), embedded.Config{
		Dir: filepath.Join(t.TempDir(), "etcd"), ClientURL: "http://" + loopback.Free(t), UnsafeNoFsync: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Kill() }()
	c, err := New(Config{Endpoints: []string{s.Endpoint()}, RequestTimeout: 100 * time.Millisecond}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	revisions := map[string]int64{}
	for _, name := range []string{"left", "expired"} {
		ops := []clientv3.Op{clientv3.OpDelete(schema.NodesPrefix + "a/" + name)}
		if name == "expired" {
			ops = append(ops, clientv3.OpDelete(schema.OwnersPrefix+name))
		}
		for _, then := range [][]clientv3.Op{
			{clientv3.OpPut(schema.NodesPrefix+"a/"+name, "{}"), clientv3.OpPut(schema.OwnersPrefix+name, "{}")}, ops,
		} {
			resp, err := c.etcd.Txn(t.Context()).Then(then...).Commit()
			if err != nil {
				t.Fatal(err)
			}
			revisions[name] = resp.Header.Revision
		}
	}
	g := NewGuard(c, GuardConfig{Owners: true}, slog.New(slog.DiscardHandler))
	g.weft = true

	s.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if got, err := g.withTheirRows(ctx, &follower{c: c}, revisions); !errors.Is(err, context.DeadlineExceeded) || len(got) > 0 {
		t.Errorf("of a store that is away: %v, %v", got, err)
	}
	type answer struct {
		gone map[string]int64
		err  error
	}
	answers := make(chan answer)
	f := &follower{c: c, st: followStatus{connected: true}}
	go func() {
		gone, err := g.withTheirRows(t.Context(), f, revisions)
		answers <- answer{gone, err}
	}()
	for f.status().connected { // who waits for the store says that it has no connection
		<-time.After(time.Millisecond)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := <-answers
	if !f.status().connected {
		t.Error("the store has answered, and it says that it has no connection")
	}
	if diff := cmp.Diff(map[string]int64{"expired": revisions["expired"]}, got.gone); diff != "" || got.err != nil {
		t.Errorf("%v; whose rows went with them (-want +got):\n%s", got.err, diff)
	}
}

// TestGuard_AsksForTheRowsOfTheNode: to see whether a node left or its lease ended, the store is not
// asked to count the addresses of the whole cluster where some of the node's are known.
func TestGuard_AsksForTheRowsOfTheNode(t *testing.T) {
	t.Parallel()
	g := NewGuard(nil, GuardConfig{Owners: true}, slog.New(slog.DiscardHandler))
	codec := schema.IPs(schema.Scope{Cluster: "a", ClusterID: 1})
	table := state.NewTable[schema.IPKey]("ips", codec.Equal)
	w := NewWatch(nil, codec, table, WatchConfig{Source: "a", Guard: g}, slog.New(slog.DiscardHandler))
	defer g.enroll(w)()
	host := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}) }
	for n := range 3 {
		name := fmt.Sprintf("n%d", n)
		g.nodeHas(name, host(n))
		for i := range 5 * n { // n0 has none
			addr := netip.AddrFrom4([4]byte{10, 0, byte(n), byte(i)})
			table.Put("a", int64(100-i), schema.IPKey{Cluster: "a", Prefix: netip.PrefixFrom(addr, 32)}, schema.IP{HostIP: host(n)})
		}
	}
	asked := func() map[string][]string {
		out := map[string][]string{}
		for name, of := range g.rowsBeside(map[string]int64{"n0": 7, "n1": 8, "n2": 9, "known": 9}, map[string]int64{"known": 9}) {
			for _, a := range of {
				key := a.key
				if a.prefix {
					key += "*"
				}
				out[name] = append(out[name], key)
			}
			slices.Sort(out[name])
		}
		return out
	}
	all := []string{codec.Prefix + "*"}
	if diff := cmp.Diff(map[string][]string{"n0": all, "n1": all, "n2": all}, asked()); diff != "" {
		t.Errorf("before the addresses are known (-want +got):\n%s", diff)
	}
	w.follow.update(func(s *followStatus) { s.synced = true })
	g.weft = true
	g.words["n2"] = ownerWord{}
	owners := func(name string) string { return schema.OwnersPrefix + name }
	want := map[string][]string{
		"n0": {owners("n0")},
		"n1": {codec.Prefix + "10.0.1.2", codec.Prefix + "10.0.1.3", codec.Prefix + "10.0.1.4", owners("n1")}, // the oldest
		"n2": {owners("n2")},
	}
	if diff := cmp.Diff(want, asked()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
