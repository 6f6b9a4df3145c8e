// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"unsafe"
)

// entry stands for a row of the ipcache: 24 bytes of key, 12 of value.
type entry struct {
	identity, node uint32
	endpoint, bits uint16
}

func address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

func filled(n int) *Table[netip.Addr, entry] {
	table := NewTable[netip.Addr]("bench", Equal[entry])
	table.Update(func(w *Writer[netip.Addr, entry]) {
		for i := range n {
			w.Put("cluster/b", int64(i), address(i), entry{identity: uint32(i)})
		}
	})
	return table
}

// bytes is what the table has allocated for its rows.
func (t *Table[K, V]) bytes() int {
	n := 4 * len(t.rows.buckets)
	for _, c := range t.rows.chunks {
		n += len(c) * int(unsafe.Sizeof(slot[K, V]{}))
	}
	for _, c := range t.columns {
		n += len(c.chunks) * int(unsafe.Sizeof([chunkSlots]doneMark{}))
	}
	return n
}

// TestTable_BytesPerRow bounds what a row costs beside its key and value.
func TestTable_BytesPerRow(t *testing.T) {
	payload := int(unsafe.Sizeof(netip.Addr{}) + unsafe.Sizeof(entry{}))
	for _, n := range []int{1_000, 100_000, 250_000} {
		table := filled(n)
		over := float64(table.bytes())/float64(n) - float64(payload)
		t.Logf("%d rows: %.1f bytes beside %d of key and value", n, over, payload)
		if over > 72 {
			t.Errorf("%d rows: %.1f bytes beside key and value, want at most 72", n, over)
		}
	}
}

// TestTable_Allocations: what runs for each change allocates nothing but what it returns.
func TestTable_Allocations(t *testing.T) {
	table := filled(10_000)
	c, idle := table.Cursor(), table.Cursor()
	defer c.Close()
	defer idle.Close()
	c.Next(0)
	n := 0
	tests := []struct {
		name string
		most float64
		do   func()
	}{
		{"get", 0, func() { table.Get(address(n % 10_000)) }},
		{"put-equal", 0, func() { table.Put("cluster/b", 0, address(77), entry{identity: 77}) }},
		{"put-changed", 0, func() { n++; table.Put("cluster/b", 0, address(n%1000), entry{identity: uint32(n), bits: 1}) }},
		{"delete-and-put", 0, func() {
			table.Delete("cluster/b", 0, address(5000))
			table.Put("cluster/b", 0, address(5000), entry{})
		}},
		{"next-of-one-change", 1, func() {
			n++
			table.Put("cluster/b", 0, address(1), entry{identity: uint32(n)})
			c.Next(64)
		}},
		{"next-of-nothing", 0, func() { c.Next(64) }},
		{"drained", 0, func() { c.Synced() }},
	}
	for _, tt := range tests {
		c.Next(0)
		if got := testing.AllocsPerRun(1000, tt.do); got > tt.most {
			t.Errorf("%s: %v allocations, want at most %v", tt.name, got, tt.most)
		}
	}
}

func sizes() []int { return []int{1_000, 100_000} }

func BenchmarkTable_PutNew(b *testing.B) {
	for _, n := range sizes() {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			var table *Table[netip.Addr, entry]
			for i := 0; b.Loop(); i++ {
				if i%n == 0 {
					table = NewTable[netip.Addr]("bench", Equal[entry])
				}
				table.Put("cluster/b", 0, address(i%n), entry{})
			}
		})
	}
}

func BenchmarkTable_PutChanged(b *testing.B) {
	for _, n := range sizes() {
		for _, cursors := range []int{0, 1, 8} {
			b.Run(fmt.Sprintf("%d/cursors-%d", n, cursors), func(b *testing.B) {
				b.ReportAllocs()
				table := filled(n)
				for range cursors {
					c := table.Cursor()
					defer c.Close()
					c.Next(0)
				}
				for i := 0; b.Loop(); i++ {
					table.Put("cluster/b", 0, address(i*7919%n), entry{identity: uint32(i), bits: 1})
				}
			})
		}
	}
}

func BenchmarkTable_PutEqual(b *testing.B) {
	for _, n := range sizes() {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			table := filled(n)
			for i := 0; b.Loop(); i++ {
				k := i * 7919 % n
				table.Put("cluster/b", 0, address(k), entry{identity: uint32(k)})
			}
		})
	}
}

func BenchmarkTable_Get(b *testing.B) {
	for _, n := range sizes() {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			table := filled(n)
			for i := 0; b.Loop(); i++ {
				table.Get(address(i * 7919 % n))
			}
		})
	}
}

// BenchmarkGoMap_Get is the control of the one above.
func BenchmarkGoMap_Get(b *testing.B) {
	for _, n := range sizes() {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := make(map[netip.Addr]Row[netip.Addr, entry])
			for i := range n {
				m[address(i)] = Row[netip.Addr, entry]{}
			}
			for i := 0; b.Loop(); i++ {
				_ = m[address(i*7919%n)]
			}
		})
	}
}

func BenchmarkTable_All(b *testing.B) {
	for _, n := range sizes() {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			table := filled(n)
			for b.Loop() {
				for range table.All() {
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/row")
		})
	}
}

func BenchmarkCursor_Next(b *testing.B) {
	for _, n := range sizes() {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			table := filled(n)
			for b.Loop() {
				c := table.Cursor()
				for len(c.Next(1000)) > 0 {
				}
				c.Close()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/row")
		})
	}
}

// BenchmarkTable_Replace is a relist that finds nothing new.
func BenchmarkTable_Replace(b *testing.B) {
	for _, n := range sizes() {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			table := filled(n)
			for b.Loop() {
				table.Replace("cluster/b", 1, func(yield func(netip.Addr, Stamped[entry]) bool) {
					for i := range n {
						if !yield(address(i), Stamped[entry]{Value: entry{identity: uint32(i)}}) {
							return
						}
					}
				})
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/row")
		})
	}
}

// BenchmarkTable_Memory reports what a row takes on the heap, and what a tombstone for a cursor
// that stands still takes: a deleted row costs what the row did.
func BenchmarkTable_Memory(b *testing.B) {
	for _, n := range append(sizes(), 250_000) {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var full, dead, none float64
			for b.Loop() {
				before := heapBytes()
				table := filled(n)
				full = float64(heapBytes()-before) / float64(n)
				c := table.Cursor()
				c.Next(0)
				table.Drop("cluster/b")
				dead = float64(heapBytes()-before) / float64(n)
				c.Close()
				none = float64(heapBytes()-before) / float64(n)
				runtime.KeepAlive(table)
			}
			b.ReportMetric(full, "B/row")
			b.ReportMetric(dead, "B/tombstone")
			b.ReportMetric(none, "B/row-after")
		})
	}
}

// BenchmarkGoMap_Memory is the control: a Go map of the same rows, without order or cursors.
func BenchmarkGoMap_Memory(b *testing.B) {
	for _, n := range append(sizes(), 250_000) {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var full float64
			for b.Loop() {
				before := heapBytes()
				m := make(map[netip.Addr]entry)
				for i := range n {
					m[address(i)] = entry{identity: uint32(i)}
				}
				full = float64(heapBytes()-before) / float64(n)
				runtime.KeepAlive(m)
			}
			b.ReportMetric(full, "B/row")
		})
	}
}

func heapBytes() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
