// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The one method beside etcd's API: a peer has its certificate renewed over the connection that it has
// with the old one. Request and answer are JSON in a BytesValue.
const (
	peeringService = "weft.v1.Peering"
	renewMethod    = "Renew"
)

// Renewal is what a peer asks for.
type Renewal struct {
	CSR []byte `json:"csr"` // DER
}

// Renewed is what it gets: its certificate, and by which roots it is to know the cluster from now on,
// new ones before anything leads to them.
type Renewed struct {
	Chain [][]byte `json:"chain"` // DER, the certificate first
	Roots [][]byte `json:"roots"` // DER
}

// Renewer renews the certificate of a client. A *RefusedRenewal is told to the client as it is.
type Renewer func(ctx context.Context, cert *x509.Certificate, r Renewal) (Renewed, error)

// RefusedRenewal is why a certificate is not renewed.
type RefusedRenewal struct{ Reason string }

// Error implements error.
func (e *RefusedRenewal) Error() string { return e.Reason }

// RenewBy says who renews the certificates of peers. It is called before Run; without it nobody does.
func (s *Server) RenewBy(f Renewer) { s.renewer = f }

// peering describes the service to the RPC library.
func (s *Server) peering() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: peeringService, HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: renewMethod,
			Handler: func(_ any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
				in := &wrapperspb.BytesValue{}
				if err := decode(in); err != nil {
					return nil, err
				}
				handle := func(ctx context.Context, req any) (any, error) {
					in, ok := req.(*wrapperspb.BytesValue)
					if !ok {
						return nil, status.Error(codes.Internal, "another kind of message")
					}
					return s.renew(ctx, in.GetValue())
				}
				if intercept == nil {
					return handle(ctx, in)
				}
				return intercept(ctx, in, &grpc.UnaryServerInfo{Server: s, FullMethod: "/" + peeringService + "/" + renewMethod}, handle)
			},
		}},
	}
}

func (s *Server) renew(ctx context.Context, body []byte) (*wrapperspb.BytesValue, error) {
	u, err := s.users.of(ctx)
	if err != nil {
		return nil, err
	}
	if err := u.request(); err != nil {
		return nil, err
	}
	if s.renewer == nil {
		return nil, status.Error(codes.Unimplemented, "this API server renews no certificates")
	}
	var r Renewal
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, status.Error(codes.InvalidArgument, "not a request for a certificate")
	}
	out, err := s.renewer(ctx, linkOf(ctx).cert, r)
	var refused *RefusedRenewal
	if errors.As(err, &refused) {
		return nil, status.Error(codes.FailedPrecondition, refused.Reason)
	}
	if err != nil {
		s.log.Warn("certificate not renewed", "user", u.name, "error", err)
		return nil, status.Error(codes.Unavailable, "the certificate was not renewed; the API server's log says why")
	}
	b, err := json.Marshal(out)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return wrapperspb.Bytes(b), nil
}

// AskRenewal asks an API server, by a connection with the certificate that is to be renewed.
func AskRenewal(ctx context.Context, conn grpc.ClientConnInterface, r Renewal) (Renewed, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return Renewed{}, err
	}
	out := &wrapperspb.BytesValue{}
	if err := conn.Invoke(ctx, "/"+peeringService+"/"+renewMethod, wrapperspb.Bytes(b), out); err != nil {
		return Renewed{}, err
	}
	var got Renewed
	return got, json.Unmarshal(out.GetValue(), &got)
}
