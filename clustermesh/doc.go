// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package clustermesh mirrors remote clusters into our tables. A directory of etcd client files
// names them; each is one value with one Run that connects, reads and checks the cluster-config,
// and mirrors nodes, addresses, identities and services as rows of the source "cluster/<name>".
//
// A remote speaks only for itself: rows of another cluster, identities outside its range and
// addresses that belong to somebody else are counted, shown and never reach a table. Whatever is
// lost (connection, store, directory) leaves the rows where they are, with their age; only the
// removal of a remote's file, or a new cluster id, drains them.
//
// The package programs no kernel and decides nothing about traffic. It may be imported by agent,
// operator, apiserver and above.
package clustermesh
