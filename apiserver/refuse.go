// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// refused reports whether a method is one of etcd's that is not for the users of an API server: all
// that write, lease, copy or administer. They get etcd's answer to whoever may only read.
func refused(method string) bool {
	switch method {
	case pb.KV_Range_FullMethodName, pb.KV_RangeStream_FullMethodName, pb.KV_Txn_FullMethodName,
		pb.Watch_Watch_FullMethodName, pb.Maintenance_Status_FullMethodName, pb.Maintenance_Alarm_FullMethodName,
		pb.Cluster_MemberList_FullMethodName, pb.Auth_AuthStatus_FullMethodName, pb.Auth_Authenticate_FullMethodName:
		return false
	}
	return strings.HasPrefix(method, "/etcdserverpb.")
}

func refuseUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if refused(info.FullMethod) {
		return nil, rpctypes.ErrGRPCPermissionDenied
	}
	return next(ctx, req)
}

func refuseStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if refused(info.FullMethod) {
		return rpctypes.ErrGRPCPermissionDenied
	}
	return next(srv, stream)
}
