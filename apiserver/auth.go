// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// authServer says that authentication is on: by certificates.
type authServer struct {
	pb.UnimplementedAuthServer
	*Server
}

// AuthStatus says that authentication is on.
func (s authServer) AuthStatus(ctx context.Context, _ *pb.AuthStatusRequest) (*pb.AuthStatusResponse, error) {
	gen, err := s.ask(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.AuthStatusResponse{Header: s.header(gen, gen.Store.Revision()), Enabled: true, AuthRevision: 1}, nil
}

// Authenticate lets a client that was given a name and a password go on. The token means nothing: who
// it is stands in its certificate.
func (s authServer) Authenticate(ctx context.Context, _ *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	gen, err := s.ask(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.AuthenticateResponse{Header: s.header(gen, gen.Store.Revision()), Token: "certificate"}, nil
}
