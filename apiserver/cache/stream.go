// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// Watches of one upstream stream.
const (
	watchKeys     = 1 // the range that is cached
	watchEpoch    = 2 // the epoch's key
	watchOwners   = 3 // what owners say of their rows, while any are held
	watchDecision = 4 // what a person decides about them
)

// maxMessage is the largest message that is taken from the etcd.
const maxMessage = 256 << 20

// stream is one stream of watches of the upstream etcd. It never resumes: what its end means is
// decided by who opened it.
type stream struct {
	rpc    grpc.BidiStreamingClient[pb.WatchRequest, pb.WatchResponse]
	cancel context.CancelFunc
	pause  chan struct{} // holds one token: requests are sent one after another
}

// openStream opens a stream without any watch.
func openStream(ctx context.Context, c *clientv3.Client) (*stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	rpc, err := pb.NewWatchClient(c.ActiveConnection()).Watch(clientv3.WithRequireLeader(ctx),
		grpc.MaxCallRecvMsgSize(maxMessage))
	if err != nil {
		cancel()
		return nil, fmt.Errorf("watch: %w", rpctypes.Error(err))
	}
	return &stream{rpc: rpc, cancel: cancel, pause: make(chan struct{}, 1)}, nil
}

func (s *stream) close() { s.cancel() }

// create asks for a watch.
func (s *stream) create(r *pb.WatchCreateRequest) error {
	return s.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
}

// askProgress makes the etcd say how far it is as soon as all watches of the stream have all events;
// until then it does not answer at all.
func (s *stream) askProgress() error {
	return s.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

func (s *stream) send(r *pb.WatchRequest) error {
	s.pause <- struct{}{}
	defer func() { <-s.pause }()
	if err := s.rpc.Send(r); err != nil {
		return fmt.Errorf("watch: %w", rpctypes.Error(err))
	}
	return nil
}

// recv returns the next message. The error of the watch of the keys is a *CompactedError where that
// is why the etcd ended it.
func (s *stream) recv() (*pb.WatchResponse, error) {
	resp, err := s.rpc.Recv()
	if err != nil {
		return nil, fmt.Errorf("watch: %w", rpctypes.Error(err))
	}
	if resp.Canceled {
		if resp.CompactRevision != 0 && resp.WatchId == watchKeys {
			return resp, fmt.Errorf("watch: %w", &CompactedError{resp.CompactRevision})
		}
		reason := resp.CancelReason
		if _, desc, ok := strings.Cut(reason, "desc = "); ok {
			reason = desc
		}
		return resp, fmt.Errorf("watch: %w", rpctypes.Error(errors.New(reason)))
	}
	return resp, nil
}

// receive hands all messages on until the stream ends, and then its error.
func (s *stream) receive(ctx context.Context, to chan<- *pb.WatchResponse) error {
	for {
		resp, err := s.recv()
		if err != nil {
			return err
		}
		select {
		case to <- resp:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pause waits, and returns false if ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
