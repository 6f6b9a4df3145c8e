// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// message is one message of a stream: events, or, without events, word that everything up to the
// revision was delivered.
type message struct {
	clusterID uint64
	revision  int64
	events    []event
	err       error // the stream has ended
}

// stream is one watch of one prefix on a connection of its own stream. It never resumes.
//
// The server must be etcd 3.5.8, 3.4.25 or newer: before, word of progress could overtake events.
type stream struct {
	prefix   string
	after    int64
	created  *pb.ResponseHeader // the store's header when the watch began
	messages chan message       // the last one has err
	rpc      grpc.BidiStreamingClient[pb.WatchRequest, pb.WatchResponse]
	client   *Client
	cancel   context.CancelFunc
	wg       sync.WaitGroup
}

// openStream begins a watch of a prefix, or of exactly one key, for what comes after a revision and waits at most timeout until the
// server confirms it.
//
// The watch starts at that revision and not behind it, so events of it may come once more: a watch
// that starts in the future gets no word of progress before something is written, and in a quiet
// store nothing would tell a working stream from a dead one.
func openStream(ctx context.Context, c *Client, prefix string, exact bool, after int64, timeout time.Duration) (*stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &stream{prefix: prefix, after: after, messages: make(chan message, 16), client: c, cancel: cancel}
	late := time.AfterFunc(min(timeout, c.cfg.RequestTimeout), cancel)
	defer late.Stop()
	fail := func(err error) error {
		timedOut := !late.Stop()
		cancel()
		if timedOut {
			err = context.DeadlineExceeded
		}
		return s.wrap(err)
	}

	var err error
	s.rpc, err = pb.NewWatchClient(c.etcd.ActiveConnection()).Watch(clientv3.WithRequireLeader(ctx),
		grpc.MaxCallRecvMsgSize(c.cfg.MaxMessageBytes))
	if err != nil {
		return nil, fail(err)
	}
	var end []byte
	if !exact {
		end = []byte(clientv3.GetPrefixRangeEnd(prefix))
	}
	err = s.rpc.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key:            []byte(prefix),
		RangeEnd:       end,
		StartRevision:  after,
		ProgressNotify: true,
	}}})
	if err != nil {
		return nil, fail(s.cause(err))
	}
	resp, err := s.rpc.Recv()
	if err == nil && (!resp.Created || resp.Canceled) {
		err = canceled(resp)
	}
	if err != nil {
		return nil, fail(err)
	}
	if !late.Stop() {
		return nil, fail(context.DeadlineExceeded)
	}
	s.created = resp.Header
	s.wg.Go(func() { s.receive(ctx) })
	return s, nil
}

// close ends the stream and waits for its receiver.
func (s *stream) close() {
	s.cancel()
	s.wg.Wait()
}

// askProgress makes the server say how far it is, as soon as everything before was delivered.
func (s *stream) askProgress() {
	// An error ends the stream, and the receiver says why.
	_ = s.rpc.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

func (s *stream) receive(ctx context.Context) {
	for {
		var m message
		resp, err := s.rpc.Recv()
		switch {
		case err != nil:
			m.err = s.wrap(err)
		case resp.Canceled:
			m.err = s.wrap(canceled(resp))
		default:
			m = message{clusterID: resp.Header.ClusterId, revision: resp.Header.Revision, events: eventsOf(resp.Events)}
		}
		select {
		case s.messages <- m:
		case <-ctx.Done():
			return
		}
		if m.err != nil {
			return
		}
	}
}

// cause returns why a Send failed: the library says only io.EOF there.
func (s *stream) cause(err error) error {
	if _, rerr := s.rpc.Recv(); rerr != nil {
		return rerr
	}
	return err
}

func (s *stream) wrap(err error) error {
	return fmt.Errorf("watch %s: %w", s.prefix, s.client.problems.explain(rpctypes.Error(err), s.client.cfg.Endpoints))
}

// canceled is the error of a watch that the server ended.
func canceled(resp *pb.WatchResponse) error {
	if resp.CompactRevision != 0 {
		return fmt.Errorf("%w: %w", errGap, rpctypes.ErrCompacted)
	}
	if reason := resp.CancelReason; reason != "" {
		// It is the text of a status, sometimes with its code in front.
		if _, desc, ok := strings.Cut(reason, "desc = "); ok {
			reason = desc
		}
		return rpctypes.Error(errors.New(reason))
	}
	return errors.New("the server ended the watch without a reason")
}

func eventsOf(evs []*mvccpb.Event) []event {
	if len(evs) == 0 {
		return nil
	}
	out := make([]event, len(evs))
	for i, ev := range evs {
		out[i] = event{KV: kvOf(ev.Kv), Deleted: ev.Type == mvccpb.Event_DELETE}
	}
	return out
}
