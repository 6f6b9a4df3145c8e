// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package mirror copies remote clusters into the own cluster's store, under cilium/cache/, byte for
// byte and as far as they are believed, so that a thousand agents cost a remote one connection for each
// API server, and an agent that restarts knows the mesh while a remote is away. Several mirrors read;
// one writes: every transaction compares the leader's key, which stands where Cilium's mirror has its
// own. Nothing carries a lease: what a mirror that died has written stays, with its age.
//
// It takes nothing from a copy but what its remote deleted, what belongs to a remote whose client file
// was removed, after a grace, or what a person forgets. It serves nobody and programs nothing. Only
// cmd and the lab import it.
package mirror
