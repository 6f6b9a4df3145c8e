// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package service turns services into frontends with chosen backends.
//
// What goes in are the definitions of our cluster, the endpoint rows of our cluster, and the
// ClusterServices that other clusters publish; what comes out is one row for each frontend (the
// address, port and protocol that clients use) with the backends behind it, in a fixed order. The
// same derivation tells what our cluster publishes for the mesh (Index.Export).
//
// The package is pure: it starts no goroutine, does no I/O and reads no clock. Index is fed single
// changes and answers with the frontends that changed; Select does the same for a whole input at
// once. Writing definitions and virtual addresses to the store is service/store.
//
// It may be imported by the datapath, the agent, the operator and everything above them, and
// imports only kvstore/schema.
package service
