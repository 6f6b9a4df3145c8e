// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package api is the local API of an agent: the proto, the code generated from
// it, and how to reach it over a unix socket. It holds no behaviour; the server
// is in package agent, the callers are the CLI and the lab.
package api

//go:generate protoc -I . --plugin=protoc-gen-go=./protoc-gen-go.sh --plugin=protoc-gen-go-grpc=./protoc-gen-go-grpc.sh --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative agent.proto
