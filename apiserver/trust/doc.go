// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package trust makes and judges a cluster's certificates. A cluster has an offline root and two
// intermediates below it: the cluster CA signs the cluster's own servers and users and is what its etcd
// trusts; the peer CA signs the readers of other clusters, may sign clients only, and lies on the API
// servers, so that one that is broken into cannot make itself a user of the etcd. Bundles of two
// clusters are never merged: a root verifies the servers of its own cluster and nothing else.
//
// It is for making, renewing and explaining certificates and for what joins clusters. Connections
// read the files themselves (kvstore, apiserver); no secret is ever logged or printed. The API
// server, the lab and cmd import it.
package trust
