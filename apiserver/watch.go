// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"errors"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// watchServer serves watches.
type watchServer struct {
	pb.UnimplementedWatchServer
	*Server
}

// errStuck ends a call whose client does not read.
var errStuck = status.Error(codes.ResourceExhausted, "the client left a message unread for too long")

// errReplaced ends a stream when the store is another one. A client that comes back finds that what
// it knew is forgotten.
var errReplaced = status.Error(codes.Unavailable, "the store is another one now")

// Watch serves the watches of one stream until the client ends it, another generation of the store
// takes its place, or the client leaves a message unread for too long.
func (s watchServer) Watch(stream pb.Watch_WatchServer) error {
	u, end, err := s.streamer(stream.Context())
	if err != nil {
		return err
	}
	defer end()
	gen := s.cache.Generation()
	if gen == nil {
		return errNotReady
	}
	ws := newWatchStream(s.Server, u, gen, stream)
	// The stream's goroutines end when its context does, which is when this function returns: a
	// client that does not read would keep it from returning otherwise.
	done := make(chan error, 1)
	s.senders.Go(func() { done <- ws.serve(stream.Context()) })
	look := time.NewTicker(s.cfg.Limits.Stuck / 4)
	defer look.Stop()
	for {
		select {
		case err := <-done:
			if errors.Is(err, context.Canceled) {
				return rpctypes.ErrGRPCWatchCanceled
			}
			return err
		case <-look.C:
			if since := ws.sending.Load(); since != nil && time.Since(*since) > s.cfg.Limits.Stuck {
				s.cutOff(stream.Context())
				return errStuck
			}
			if l := linkOf(stream.Context()); l.expired(time.Now()) {
				l.cut()
				return errExpired
			}
		}
	}
}

// cutOff ends the connection of a client that does not read: what is ready for it would stay in
// memory for as long as the connection stands, whatever becomes of the call.
func (s *Server) cutOff(ctx context.Context) {
	s.stuck.Add(1)
	if l := linkOf(ctx); l != nil {
		s.log.Warn("a client does not read and is cut off", "user", l.cert.Subject.CommonName, "address", l.RemoteAddr().String())
		l.cut()
	}
}

// inTime calls send, and cuts the connection off when it takes too long.
func (s *Server) inTime(ctx context.Context, send func() error) error {
	done := make(chan error, 1)
	late := time.NewTimer(s.cfg.Limits.Stuck)
	defer late.Stop()
	s.senders.Go(func() { done <- send() })
	select {
	case err := <-done:
		return err
	case <-late.C:
		s.cutOff(ctx)
		return errStuck
	}
}
