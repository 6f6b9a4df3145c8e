// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	stock "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// floor is the least that a server of watches can cost with this library: a loop for each stream that
// writes bytes, which were encoded once, and knows nothing of keys, revisions, rights or limits.
type floor struct {
	pb.UnimplementedWatchServer
	said atomic.Pointer[said]
}

// said is what was written so far. Only its writer appends.
type said struct {
	messages mem.BufferSlice
	more     chan struct{} // closed when there is more
}

// Watch takes whatever is asked for as a watch of everything.
func (f *floor) Watch(stream pb.Watch_WatchServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	at := len(f.said.Load().messages)
	if err := stream.Send(&pb.WatchResponse{Header: &pb.ResponseHeader{Revision: 1}, Created: true}); err != nil {
		return err
	}
	for {
		s := f.said.Load()
		if at < len(s.messages) {
			// Messages behind one another are one with the fields of all.
			if err := stream.SendMsg(s.messages[at:]); err != nil {
				return err
			}
			at = len(s.messages)
			continue
		}
		select {
		case <-s.more:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// write says n events, so many a second.
func (f *floor) write(ctx context.Context, n, perSecond int) error {
	return paced(ctx, n, perSecond, func(i int) error {
		b, err := proto.Marshal(&pb.WatchResponse{
			Header: &pb.ResponseHeader{ClusterId: 1 << 63, MemberId: 1 << 63, Revision: int64(i) + 2, RaftTerm: 2},
			Events: []*mvccpb.Event{{Kv: &mvccpb.KeyValue{
				Key: []byte(watchKey(watchPrefix(kindFloor), i)), Value: watchValue(time.Now()), CreateRevision: 2, ModRevision: int64(i) + 2, Version: 1,
			}}},
		})
		if err != nil {
			return err
		}
		old := f.said.Load()
		f.said.Store(&said{append(old.messages, mem.SliceBuffer(b)), make(chan struct{})})
		close(old.more)
		return nil
	})
}

// encodedCodec is the library's, and takes bytes that are encoded already as they are.
type encodedCodec struct{ encoding.CodecV2 }

// Marshal encodes a message.
func (c encodedCodec) Marshal(m any) (mem.BufferSlice, error) {
	if b, ok := m.(mem.BufferSlice); ok {
		return b, nil
	}
	return c.CodecV2.Marshal(m)
}

// serveFloor runs the floor.
func serveFloor(ctx context.Context, task serveTask, g *errgroup.Group, l net.Listener) (func(string) (serveAnswer, error), error) {
	s, err := task.Files.server(grpc.ForceServerCodecV2(encodedCodec{encoding.GetCodecV2(stock.Name)}))
	if err != nil {
		return nil, err
	}
	f := &floor{}
	f.said.Store(&said{more: make(chan struct{})})
	pb.RegisterWatchServer(s, f)
	g.Go(func() error { return s.Serve(l) })
	g.Go(func() error {
		<-ctx.Done()
		s.Stop()
		return nil
	})
	return func(line string) (serveAnswer, error) {
		var n, perSecond int
		if _, err := fmt.Sscanf(line, "write %d %d", &n, &perSecond); err != nil {
			return serveAnswer{}, fmt.Errorf("no such command: %w", err)
		}
		return serveAnswer{}, f.write(ctx, n, perSecond)
	}, nil
}

// paced calls do n times, so many times a second: what is late is caught up with.
func paced(ctx context.Context, n, perSecond int, do func(i int) error) error {
	began := time.Now()
	for i := range n {
		at := began.Add(time.Duration(i) * time.Second / time.Duration(perSecond))
		if wait := time.Until(at); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := do(i); err != nil {
			return err
		}
	}
	return nil
}
