// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

// doneMark says when and at which revision a row was last applied to the outside.
type doneMark struct {
	revision uint64
	at       int64 // Unix time in nanoseconds, 0 = never
}

// column is one doneMark per slot of a table, kept by a [Reconciler] beside the rows. It costs 16
// bytes a row, where a map by key would hold each key again.
type column struct {
	chunks []*[chunkSlots]doneMark
}

func (c *column) get(i uint32) doneMark {
	if n := int(i / chunkSlots); n < len(c.chunks) {
		return c.chunks[n][i%chunkSlots]
	}
	return doneMark{}
}

func (c *column) set(i uint32, m doneMark) {
	for int(i/chunkSlots) >= len(c.chunks) {
		c.chunks = append(c.chunks, new([chunkSlots]doneMark))
	}
	c.chunks[i/chunkSlots][i%chunkSlots] = m
}

func (c *column) clear(i uint32) {
	if n := int(i / chunkSlots); n < len(c.chunks) {
		c.chunks[n][i%chunkSlots] = doneMark{}
	}
}
