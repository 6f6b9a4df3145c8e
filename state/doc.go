// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package state holds the tables everything else is computed from, and the reconcilers that make
// the outside world equal to a table.
//
//	source --> Table --Cursor--> derivation --> Table --Reconciler--> kernel, etcd
//
// A [Table] is a map of rows in the order of their last change. Each row says which [Source] wrote
// it, and each source says when it has delivered everything it has (synced) and when it was last
// known to be right (confirmed). Any number of [Cursor]s read the changes, coalesced per key and
// deletions included, each at its own pace: what a slow one costs is bounded by the number of rows
// it has been given, never by the number of changes. [Derive] is the loop around a pure function
// from rows to rows. A [Reconciler] applies a table to something outside through [Ops]. An [Index]
// finds keys by something derived from the row.
//
// The package is not for I/O, not for configuration, and knows nothing about networks: what a key
// or a value is belongs to the packages above. It has no history (a reader gets the last value of
// a key, not each value it had) and no transactions over several tables. Values are immutable: who
// writes a row must not change afterwards what the value points to.
//
// Every package of this module may import it; it imports none of them. Nothing in it starts a
// goroutine: the blocking calls run on their caller.
package state
