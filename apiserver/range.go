// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/weft-net/weft/apiserver/cache"
)

// kvServer answers reads.
type kvServer struct {
	pb.UnimplementedKVServer
	*Server
}

// Range answers with the keys of a range.
func (s kvServer) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if err := checkRange(r); err != nil {
		return nil, err
	}
	u, err := s.permit(ctx, r.Key, r.RangeEnd)
	if err != nil {
		return nil, err
	}
	gen, resp, err := s.read(ctx, r)
	if err != nil {
		return nil, err
	}
	s.fill(resp.Header, gen)
	if err := s.account(ctx, u, proto.Size(resp)); err != nil {
		return nil, err
	}
	return resp, nil
}

// RangeStream answers with the keys of a range in messages of a bounded size. As with etcd the header
// and the count stand in the last.
func (s kvServer) RangeStream(r *pb.RangeRequest, stream pb.KV_RangeStreamServer) error {
	ctx := stream.Context()
	if err := checkRange(r); err != nil {
		return err
	}
	if r.SortOrder != pb.RangeRequest_NONE && (r.SortTarget != pb.RangeRequest_KEY || r.SortOrder != pb.RangeRequest_ASCEND) {
		return status.Error(codes.Unimplemented, "RangeStream does not support custom sort orders")
	}
	if r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0 {
		return status.Error(codes.Unimplemented, "RangeStream does not support revision filters")
	}
	u, end, err := s.streamer(ctx)
	if err != nil {
		return err
	}
	defer end()
	if !u.rights.allow(r.Key, r.RangeEnd) {
		return rpctypes.ErrGRPCPermissionDenied
	}
	gen, resp, err := s.read(ctx, r)
	if err != nil {
		return err
	}
	s.fill(resp.Header, gen)
	for all := resp.Kvs; ; {
		n := chunk(all)
		out := &pb.RangeResponse{Kvs: all[:n]}
		all = all[n:]
		if len(all) == 0 {
			out.Header, out.More, out.Count = resp.Header, resp.More, resp.Count
		}
		size := proto.Size(out)
		if err := s.account(ctx, u, size); err != nil {
			return err
		}
		err := s.inTime(ctx, func() error { return stream.Send(&pb.RangeStreamResponse{RangeResponse: out}) })
		s.budget.give(ctx)
		if err != nil || len(all) == 0 {
			return err
		}
	}
}

// messageBytes is how large messages get that have a bounded size.
const messageBytes = 1 << 20

// chunk returns how many keys make one message: one at least, of those that there are.
func chunk(kvs []*mvccpb.KeyValue) int {
	size := 0
	for i, kv := range kvs {
		if size += len(kv.Key) + len(kv.Value) + 40; i > 0 && size > messageBytes {
			return i
		}
	}
	return len(kvs)
}

// account waits until an answer of some bytes may be sent to a user.
func (s *Server) account(ctx context.Context, u *user, bytes int) error {
	if err := u.spend(ctx, bytes); err != nil {
		s.refused.Add(1)
		return err
	}
	if err := s.budget.take(ctx, int64(bytes)); err != nil {
		return status.FromContextError(err).Err()
	}
	return nil
}

// requester returns whose request it is, and counts it.
func (s *Server) requester(ctx context.Context) (*user, error) {
	u, err := s.users.of(ctx)
	if err != nil {
		return nil, err
	}
	if err := u.request(); err != nil {
		s.refused.Add(1)
		return nil, err
	}
	return u, nil
}

// streamer returns whose stream it is, and counts it as open until end is called.
func (s *Server) streamer(ctx context.Context) (u *user, end func(), err error) {
	if u, err = s.users.of(ctx); err != nil {
		return nil, nil, err
	}
	if end, err = u.openStream(); err != nil {
		s.refused.Add(1)
		return nil, nil, err
	}
	return u, end, nil
}

// permit counts a request and checks that its user may read a range.
func (s *Server) permit(ctx context.Context, key, end []byte) (*user, error) {
	u, err := s.requester(ctx)
	if err != nil {
		return nil, err
	}
	if !u.rights.allow(key, end) {
		return nil, rpctypes.ErrGRPCPermissionDenied
	}
	return u, nil
}

// read answers one range request: it asks the etcd how far it is unless the request does without, and
// waits for a revision or a part of the history that is still on its way.
func (s *Server) read(ctx context.Context, r *pb.RangeRequest) (gen *cache.Generation, resp *pb.RangeResponse, err error) {
	err = s.at(ctx, r.Serializable, func(g *cache.Generation, sn cache.Snapshot) (err error) {
		gen = g
		resp, err = sn.Range(r)
		if r.Revision <= 0 && errors.As(err, new(*cache.CompactedError)) {
			return errAgain // it was forgotten while it was read
		}
		return err
	})
	return gen, resp, err
}

// errAgain means that a newer snapshot has to be read.
var errAgain = errors.New("read again")

// at calls fn with a snapshot that is new enough, until its answer is one for the client. The error
// is a status.
func (s *Server) at(ctx context.Context, serializable bool, fn func(*cache.Generation, cache.Snapshot) error) error {
	fresh, asked := false, !serializable
	for {
		if asked {
			var err error
			if fresh, err = s.cache.Sync(ctx); err != nil {
				return status.FromContextError(err).Err()
			}
		}
		for {
			gen := s.cache.Generation()
			if gen == nil {
				return errNotReady
			}
			err := fn(gen, gen.Store.Snapshot())
			var filling *cache.FillingError
			switch {
			case err == nil:
				return nil
			case errors.Is(err, errAgain):
				if ctx.Err() != nil {
					return status.FromContextError(ctx.Err()).Err()
				}
				continue
			case errors.As(err, &filling):
				select {
				case <-filling.Done:
					continue
				case <-ctx.Done():
					return status.FromContextError(ctx.Err()).Err()
				}
			case errors.As(err, new(*cache.CompactedError)):
				return rpctypes.ErrGRPCCompacted
			case !errors.Is(err, cache.ErrFuture):
				return err
			case asked && fresh:
				return rpctypes.ErrGRPCFutureRev
			case asked:
				return rpctypes.ErrGRPCTimeout // another replica may be further
			}
			break
		}
		asked = true
	}
}

// checkRange refuses what etcd refuses before it looks at the store.
func checkRange(r *pb.RangeRequest) error {
	if len(r.Key) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	if _, ok := pb.RangeRequest_SortOrder_name[int32(r.SortOrder)]; !ok {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	if _, ok := pb.RangeRequest_SortTarget_name[int32(r.SortTarget)]; !ok {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	return nil
}
