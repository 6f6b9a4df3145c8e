// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

const (
	fieldEvents = 11 // of a WatchResponse: an event
	fieldPrev   = 3  // of an event: what was before
)

// encodeLocked encodes an event as in Change. What stands in a message to a watch is the same for all
// watches, so it is made once, when the event comes, and not for each that it is sent to. Key and value
// then lie in those bytes: the event costs no more memory than it did.
func (s *Store) encodeLocked(ev *mvccpb.Event) mem.Buffer {
	kv := ev.Kv
	unknown := kv.ProtoReflect().GetUnknown()
	inner := proto.Size(kv)
	outer := sizeVarint(1, uint64(ev.Type)) + protowire.SizeTag(2) + protowire.SizeBytes(inner)

	b := make([]byte, 0, protowire.SizeTag(fieldEvents)+protowire.SizeBytes(outer))
	b = protowire.AppendTag(b, fieldEvents, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(outer))
	b = appendVarint(b, 1, uint64(ev.Type))
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(inner))
	b, kv.Key = appendBytes(b, 1, kv.Key)
	b = appendVarint(b, 2, uint64(kv.CreateRevision))
	b = appendVarint(b, 3, uint64(kv.ModRevision))
	b = appendVarint(b, 4, uint64(kv.Version))
	b, kv.Value = appendBytes(b, 5, kv.Value)
	b = appendVarint(b, 6, uint64(kv.Lease))
	b = append(b, unknown...)
	s.coded += int64(len(b))
	return mem.SliceBuffer(b)
}

// EncodedWithPrev is Encoded for a watch that is told what was before, which is encoded anew each time.
func (c Change) EncodedWithPrev() mem.Buffer {
	shared := c.Encoded.ReadOnlyData()
	_, _, n := protowire.ConsumeTag(shared)
	event, _ := protowire.ConsumeBytes(shared[n:])
	prev := proto.Size(c.Prev)
	size := len(event) + protowire.SizeTag(fieldPrev) + protowire.SizeBytes(prev)
	b := make([]byte, 0, protowire.SizeTag(fieldEvents)+protowire.SizeBytes(size))
	b = protowire.AppendTag(b, fieldEvents, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = append(b, event...)
	b = protowire.AppendTag(b, fieldPrev, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(prev))
	b, _ = proto.MarshalOptions{}.MarshalAppend(b, c.Prev) // what came from the etcd can be encoded
	return mem.SliceBuffer(b)
}

// sizeVarint is what appendVarint appends.
func sizeVarint(field protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(field) + protowire.SizeVarint(v)
}

// appendVarint appends a number; zero is not encoded.
func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// appendBytes appends bytes, and returns them as they lie in b, which must have room for them; none are
// not encoded.
func appendBytes(b []byte, field protowire.Number, v []byte) (out, in []byte) {
	if len(v) == 0 {
		return b, v
	}
	b = protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
	return b, b[len(b)-len(v) : len(b) : len(b)]
}
