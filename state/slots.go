// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import "hash/maphash"

// A slot is named by a number from 1 on; none is no slot.
const none uint32 = 0

// chunkSlots is how many slots are allocated at a time. The first chunk grows to this size by
// doubling, so that a table of four rows does not cost 256.
const chunkSlots = 256

// slotState says what a slot holds.
type slotState uint8

const (
	slotFree slotState = iota // nothing; next chains the free slots
	slotLive                  // a row
	slotDead                  // a tombstone: a deleted row that some cursor still has to deliver
)

// slot is one row with its place in the order of changes. The fields beside key and value cost 48
// bytes; the order of the fields keeps them free of padding.
type slot[K comparable, V any] struct {
	key      K
	value    V
	origin   int64
	revision uint64
	born     uint64 // revision at which the key first appeared; see Table.wanted
	changed  int64  // Unix time in nanoseconds
	prev     uint32
	next     uint32
	hash     uint32
	source   uint16 // index into Table.sources
	state    slotState
	listed   bool // written since its source last began a list
}

// slots is the storage of a table: slots in chunks that never move, a list through them in order
// of last change, and a hash index from key to slot. The index holds slot numbers instead of keys:
// with the 48-byte keys of the ipcache it takes 5 to 11 bytes a row, where a Go map takes 90.
type slots[K comparable, V any] struct {
	seed    maphash.Seed
	chunks  [][]slot[K, V]
	used    uint32 // slots ever handed out, the unused slot 0 included
	held    int    // slots that are not free
	free    uint32 // first free slot
	head    uint32 // changed longest ago
	tail    uint32 // changed last
	buckets []uint32
}

func newSlots[K comparable, V any](seed maphash.Seed) slots[K, V] {
	return slots[K, V]{seed: seed, used: 1}
}

// at returns a slot. The pointer is good until the next call of take.
func (s *slots[K, V]) at(i uint32) *slot[K, V] {
	return &s.chunks[i/chunkSlots][i%chunkSlots]
}

// take returns a slot that holds nothing yet, entered into the index under k.
func (s *slots[K, V]) take(hash uint32, k K) uint32 {
	i := s.free
	if i != none {
		s.free = s.at(i).next
	} else {
		i = s.used
		s.used++
		s.room(i)
	}
	*s.at(i) = slot[K, V]{key: k, hash: hash}
	s.held++
	s.enter(i)
	return i
}

// room makes slot i addressable.
func (s *slots[K, V]) room(i uint32) {
	c, o := int(i/chunkSlots), int(i%chunkSlots)
	if c == len(s.chunks) {
		n := chunkSlots
		if c == 0 {
			n = 8
		}
		s.chunks = append(s.chunks, make([]slot[K, V], n))
	}
	if o == len(s.chunks[c]) { // only ever true of the first chunk
		grown := make([]slot[K, V], 2*o)
		copy(grown, s.chunks[c])
		s.chunks[c] = grown
	}
}

// drop gives a slot back that is neither in the order nor wanted by anybody.
func (s *slots[K, V]) drop(i uint32) {
	s.leave(i)
	*s.at(i) = slot[K, V]{next: s.free} // lets go of what the value points to
	s.free = i
	s.held--
}

// link makes a slot the one that changed last.
func (s *slots[K, V]) link(i uint32) {
	at := s.at(i)
	at.prev, at.next = s.tail, none
	if s.tail == none {
		s.head = i
	} else {
		s.at(s.tail).next = i
	}
	s.tail = i
}

// unlink takes a slot out of the order.
func (s *slots[K, V]) unlink(i uint32) {
	at := s.at(i)
	if at.prev == none {
		s.head = at.next
	} else {
		s.at(at.prev).next = at.next
	}
	if at.next == none {
		s.tail = at.prev
	} else {
		s.at(at.next).prev = at.prev
	}
	at.prev, at.next = none, none
}

// sparse says that so few slots are held that it pays to move them together.
func (s *slots[K, V]) sparse() bool {
	return s.used > 4*chunkSlots && s.held < int(s.used)/4
}

// packed returns the same rows in the same order in as little memory as they need, calling moved
// for each slot's old and new number.
func (s *slots[K, V]) packed(moved func(from, to uint32)) slots[K, V] {
	out := newSlots[K, V](s.seed)
	for i := s.head; i != none; {
		from := s.at(i)
		to := out.take(from.hash, from.key)
		at := out.at(to)
		*at = *from
		at.prev, at.next = none, none
		out.link(to)
		moved(i, to)
		i = from.next
	}
	return out
}
