// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// MaxMessage bounds one message in either direction, in bytes. Tables and maps
// are streamed row by row, so only a single row has to fit.
const MaxMessage = 16 << 20

// Dial returns a client of the agent behind the socket. It does no I/O: a socket
// that nobody listens on is an Unavailable error of the first call. The caller
// closes the connection.
func Dial(socket string, more ...grpc.DialOption) (AgentClient, *grpc.ClientConn, error) {
	path, err := filepath.Abs(socket)
	if err != nil {
		return nil, nil, fmt.Errorf("socket %s: %w", socket, err)
	}
	options := append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
		grpc.WithAuthority("localhost"),
	}, more...)
	conn, err := grpc.NewClient("unix://"+path, options...)
	if err != nil {
		return nil, nil, fmt.Errorf("socket %s: %w", socket, err)
	}
	return NewAgentClient(conn), conn, nil
}
