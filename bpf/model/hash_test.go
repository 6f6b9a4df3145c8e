// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"encoding/binary"
	"math/bits"

	"github.com/weft-net/weft/bpf"
)

// choose is the choice of a backend as docs/datapath.md has it: hash times count, the upper half. The
// hash is murmur3 of both addresses and the ports, seeded with the protocol.
func choose(key bpf.FlowKey, count uint32) uint32 {
	data := append(append([]byte(nil), key.Source[:]...), key.Destination[:]...)
	data = binary.LittleEndian.AppendUint16(data, key.SourcePort)
	data = binary.LittleEndian.AppendUint16(data, key.DestinationPort)
	return uint32(uint64(murmur3(uint32(key.Protocol), data)) * uint64(count) >> 32)
}

// murmur3 is the 32 bit hash of that name, for data of whole words.
func murmur3(hash uint32, data []byte) uint32 {
	for at := 0; at < len(data); at += 4 {
		word := binary.LittleEndian.Uint32(data[at:]) * 0xcc9e2d51
		hash ^= bits.RotateLeft32(word, 15) * 0x1b873593
		hash = bits.RotateLeft32(hash, 13)*5 + 0xe6546b64
	}
	hash ^= uint32(len(data))
	hash = (hash ^ hash>>16) * 0x85ebca6b
	hash = (hash ^ hash>>13) * 0xc2b2ae35
	return hash ^ hash>>16
}
