// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package join makes two clusters peers: with a token that one of them shows once, they exchange
// certificates over one connection, each signed by the cluster whose servers it is for, and no private
// key leaves its cluster. It holds both ends of that conversation, the rows of tokens and peers, the
// files that a peer is reached with, and the list of those that left.
//
// It is not for reading another cluster, which packages apiserver/mirror and clustermesh do with the
// files, nor for making authorities, which package apiserver/trust does. Only cmd and the lab import it.
package join
