// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package kvstore keeps rows in etcd and mirrors rows from etcd: a Client, a Session (lease), a
// Store (a table is published) and a Watch (a prefix is mirrored into a table). It knows nothing
// of what the rows mean; their bytes are those of package schema, their place is a state.Table.
// It is not for deciding what a lost or wiped store means for traffic: rows stay in their tables
// with their age, and whoever programs the kernel decides.
//
// Everything above state may import it.
package kvstore
