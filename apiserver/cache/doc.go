// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package cache holds one range of an etcd's keys in memory, with its revisions: the keys as they
// are, the history of a while, and whoever reads pins the revision he reads at. A Store is the
// ordered, revisioned set of keys; a Cache fills it from an etcd by one list and one watch and knows
// how far it may be believed. Reads never wait for writes, and a thousand watchers cost the etcd one.
// It is not for deciding who may read what, and it serves nothing by itself. The API server imports
// it.
package cache
