// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// BenchmarkIPMemory reports what a decoded ip row costs in a table: an agent holds one for every
// endpoint of the mesh.
func BenchmarkIPMemory(b *testing.B) {
	const rows = 100_000
	codec := schema.IPs(schema.Scope{Cluster: "c3", ClusterID: 3})
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		before := heap()
		table := state.NewTable[schema.IPKey]("ips", state.Equal[schema.IP])
		for i := range rows {
			a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
			k, err := codec.ParseKey(a.String())
			if err != nil {
				b.Fatal(err)
			}
			v, err := codec.Decode(k, fmt.Appendf(nil, `{"IP":"%s","Mask":null,"HostIP":"172.16.0.1","ID":196865,"Key":0,`+
				`"Metadata":"cilium-global:c3:node-%d:%d","K8sNamespace":"default","K8sPodName":"web-6d4b75cb6d-%05d",`+
				`"K8sServiceAccount":"default","NamedPorts":[{"Name":"http","Port":80,"Protocol":"TCP"}]}`, a, i/100, i%100, i))
			if err != nil {
				b.Fatal(err)
			}
			table.Put("cluster/c3", int64(i), k, v)
		}
		b.ReportMetric(float64(heap()-before)/rows, "B/row")
		runtime.KeepAlive(table)
	}
}
