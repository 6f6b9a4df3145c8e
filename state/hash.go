// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import "hash/maphash"

// A bucket of the index is a slot number and the top bits of the key's hash, which spare nearly
// all visits to slots with another key. 26 bits are 67 million rows, more than a node's memory.
const (
	numberBits = 26
	numberMask = 1<<numberBits - 1
)

func bucketOf(i, hash uint32) uint32 { return i | hash>>numberBits<<numberBits }

func (s *slots[K, V]) hashOf(k K) uint32 { return uint32(maphash.Comparable(s.seed, k)) }

// find returns the slot of k, or none.
func (s *slots[K, V]) find(hash uint32, k K) uint32 {
	if len(s.buckets) == 0 {
		return none
	}
	mask := uint32(len(s.buckets) - 1)
	for p := hash & mask; ; p = (p + 1) & mask {
		b := s.buckets[p]
		if b == 0 {
			return none
		}
		if b>>numberBits != hash>>numberBits {
			continue
		}
		if at := s.at(b & numberMask); at.hash == hash && at.key == k {
			return b & numberMask
		}
	}
}

// enter puts a held slot, whose key is not in the index, into it.
func (s *slots[K, V]) enter(i uint32) {
	if s.held*4 > len(s.buckets)*3 {
		s.regrow()
	}
	s.place(i, s.at(i).hash)
}

func (s *slots[K, V]) place(i, hash uint32) {
	mask := uint32(len(s.buckets) - 1)
	p := hash & mask
	for s.buckets[p] != 0 {
		p = (p + 1) & mask
	}
	s.buckets[p] = bucketOf(i, hash)
}

func (s *slots[K, V]) regrow() {
	old := s.buckets
	s.buckets = make([]uint32, max(8, 2*len(old)))
	for _, b := range old {
		if b != 0 {
			s.place(b&numberMask, s.at(b&numberMask).hash)
		}
	}
}

// leave takes a slot out of the index. The buckets behind it move up, so that a search may stop at
// the first empty one and no deletion leaves a mark.
func (s *slots[K, V]) leave(i uint32) {
	mask := uint32(len(s.buckets) - 1)
	hole := s.at(i).hash & mask
	for s.buckets[hole]&numberMask != i {
		hole = (hole + 1) & mask
	}
	for p := (hole + 1) & mask; s.buckets[p] != 0; p = (p + 1) & mask {
		home := s.at(s.buckets[p]&numberMask).hash & mask
		if (p-home)&mask >= (p-hole)&mask { // the hole is on the way from home to p
			s.buckets[hole] = s.buckets[p]
			hole = p
		}
	}
	s.buckets[hole] = 0
}
