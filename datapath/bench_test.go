// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/internal/netns"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// benchRows is how many endpoints the rest of the mesh has.
const benchRows = 100_000

func benchKey(i int) schema.IPKey {
	return schema.IPKey{
		Cluster: "two",
		Prefix:  hostPrefix(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})),
	}
}

// BenchmarkIPCacheRow is the pure part: what one changed ip row costs.
func BenchmarkIPCacheRow(b *testing.B) {
	cfg := viewConfig(ModeVXLAN)
	row := schema.IP{HostIP: addr("192.0.2.2"), ID: 70000}
	v := newIPCacheView(cfg, func(k schema.IPKey) (schema.IP, bool) { return row, k.Cluster == "two" })
	v.applyIPs([]state.Change[schema.IPKey, schema.IP]{{Row: state.Row[schema.IPKey, schema.IP]{Key: benchKey(1)}}})
	p := benchKey(7).Prefix
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := v.row(p); !ok {
			b.Fatal("no row")
		}
	}
}

// BenchmarkIPCache_Fill takes ip rows of a whole mesh from the table into the kernel.
func BenchmarkIPCache_Fill(b *testing.B) {
	netns.RequireRoot(b)
	cfg := viewConfig(ModeVXLAN)
	sizes := testConfig("bench")
	sizes.Mode, sizes.NodeIPs, sizes.MaxIPCache = cfg.Mode, cfg.NodeIPs, 2*benchRows
	for b.Loop() {
		b.StopTimer()
		o, err := bpf.Load(sizes.programs(""))
		if err != nil {
			b.Fatal(err)
		}
		tables := testTables()
		markSynced(tables)
		tables.IPs.Update(func(w *state.Writer[schema.IPKey, schema.IP]) {
			for i := range benchRows {
				w.Put("test", 0, benchKey(i), schema.IP{HostIP: netip.AddrFrom4([4]byte{192, 0, 2, byte(2 + i%50)}), ID: uint32(70000 + i%1000)})
			}
		})
		nodes, err := openNodeMap(o, true, func(netip.Addr) int { return 1500 })
		if err != nil {
			b.Fatal(err)
		}
		ops, err := openIPCache(o, nodes, newGeneration(o.Generation))
		if err != nil {
			b.Fatal(err)
		}
		out := state.NewTable[netip.Prefix]("ipcache", state.Equal[IPCacheEntry])
		rec := state.NewReconciler(state.ReconcilerConfig{BatchSize: 4096}, out, state.Ops[netip.Prefix, IPCacheEntry](ops), nil)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		ended := make(chan error, 2)
		b.StartTimer()
		go func() { ended <- deriveIPCache(ctx, cfg, tables, out) }()
		go func() { ended <- rec.Run(ctx) }()
		if err := rec.WaitPruned(ctx); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		cancel()
		<-ended
		<-ended
		o.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchRows, "ns/row")
}
