// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// clusterServer tells who the replicas are. Clients that follow the list go to them, never to the
// etcd.
type clusterServer struct {
	pb.UnimplementedClusterServer
	*Server
}

// MemberList lists the replicas with the URLs that clients reach them by.
func (s clusterServer) MemberList(ctx context.Context, _ *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	gen, err := s.ask(ctx)
	if err != nil {
		return nil, err
	}
	resp := &pb.MemberListResponse{Header: s.header(gen, gen.Store.Revision())}
	for _, r := range s.cfg.Replicas {
		resp.Members = append(resp.Members, &pb.Member{ID: memberID(s.cfg.Cluster, r.Name), Name: r.Name, ClientURLs: r.URLs})
	}
	return resp, nil
}
