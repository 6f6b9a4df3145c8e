// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/encoding"
	stock "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// eventMessage is a message of events to a watch, which were encoded when they happened: thousands of
// watches are sent the same bytes, and only what stands before them is made for each.
type eventMessage struct {
	head   *pb.WatchResponse // without events
	events mem.BufferSlice
	whole  mem.BufferSlice // head and events as they are sent; nil: the head is to be encoded yet
}

// fragmentBytes is above what a message of a watch is divided that may be: etcd's largest request.
const fragmentBytes = 3 << 19

// headBytes is more than what stands before the events.
const headBytes = 64

// fragments divides a message that is too large and may be divided; all parts but the last say so.
func (m *eventMessage) fragments() []*eventMessage {
	if m.events.Len()+headBytes < fragmentBytes || len(m.events) < 2 {
		return []*eventMessage{m}
	}
	var parts []*eventMessage
	size := fragmentBytes
	for _, ev := range m.events {
		if size+ev.Len() > fragmentBytes {
			head := proto.Clone(m.head).(*pb.WatchResponse)
			head.Fragment = true
			parts = append(parts, &eventMessage{head: head})
			size = headBytes
		}
		p := parts[len(parts)-1]
		p.events = append(p.events, ev)
		size += ev.Len()
	}
	parts[len(parts)-1].head.Fragment = false
	return parts
}

// codec is the library's for all messages but those of events.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(stock.Name)} }

// Marshal encodes a message.
func (c codec) Marshal(m any) (mem.BufferSlice, error) {
	em, ok := m.(*eventMessage)
	if !ok {
		return c.CodecV2.Marshal(m)
	}
	if em.whole != nil {
		return em.whole, nil
	}
	head, err := c.CodecV2.Marshal(em.head)
	if err != nil {
		return nil, err
	}
	return append(head, em.events...), nil
}
