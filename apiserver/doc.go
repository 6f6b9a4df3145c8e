// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package apiserver is a cluster's public face: the etcd v3 API, read-only, over TLS with
// certificates on both sides, answered from a cache of the cluster's etcd. Remote clusters, Cilium's
// agents and stock etcd clients use it as they use an etcd; what a certificate's name may read is
// decided here. It never writes, and it is not for a cluster's own nodes, which use the etcd itself.
// Only cmd and the lab import it.
package apiserver
