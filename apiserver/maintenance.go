// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/api/v3/version"

	"github.com/weft-net/weft/apiserver/cache"
)

// maintenanceServer says how the server is.
type maintenanceServer struct {
	pb.UnimplementedMaintenanceServer
	*Server
}

// Status tells version, size and revision, and in its errors since when a store is away. Any
// certificate may ask, so why it is stands in the log only.
func (s maintenanceServer) Status(ctx context.Context, _ *pb.StatusRequest) (*pb.StatusResponse, error) {
	gen, err := s.ask(ctx)
	if err != nil {
		return nil, err
	}
	st := gen.Store.Stats()
	resp := &pb.StatusResponse{
		Header: s.header(gen, st.Revision), Version: version.Version, StorageVersion: "3.6.0",
		DbSize: st.Bytes + st.HistoryBytes, DbSizeInUse: st.Bytes, DbSizeQuota: st.Bytes + s.cfg.History.Bytes,
		Leader: s.member, RaftTerm: s.cache.Term(), RaftIndex: uint64(st.Revision), RaftAppliedIndex: uint64(st.Revision),
	}
	up := s.cache.Status()
	switch {
	case !up.Holding.IsZero():
		resp.Errors = append(resp.Errors, "stale: the store was lost; what it had is served since "+
			up.Holding.UTC().Format(time.RFC3339))
	case !up.Connected:
		resp.Errors = append(resp.Errors, "stale: the store is away since "+up.Away.UTC().Format(time.RFC3339))
	case up.Held.Rows > 0:
		resp.Errors = append(resp.Errors, fmt.Sprintf("held: %d keys that the store lost and nobody deleted are served since %s; %d nodes have not said that theirs are there",
			up.Held.Rows, up.Held.Since.UTC().Format(time.RFC3339), up.Held.Silent))
	}
	return resp, nil
}

// Alarm tells that there are none.
func (s maintenanceServer) Alarm(ctx context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	if r.Action != pb.AlarmRequest_GET {
		return nil, rpctypes.ErrGRPCPermissionDenied
	}
	gen, err := s.ask(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.AlarmResponse{Header: s.header(gen, gen.Store.Revision())}, nil
}

// ask counts a request that reads no key, which any certificate may make.
func (s *Server) ask(ctx context.Context) (gen *cache.Generation, err error) {
	if _, err := s.requester(ctx); err != nil {
		return nil, err
	}
	if gen = s.cache.Generation(); gen == nil {
		return nil, errNotReady
	}
	return gen, nil
}
