// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import "time"

// Source names who wrote a row: "local", "etcd", "cluster/<name>". A source is one writer: it
// alone deletes its rows and says that it is synced.
type Source string

// Row is one row of a [Table] as it stood when it was read.
type Row[K comparable, V any] struct {
	Key   K
	Value V

	// Source is who wrote the row last.
	Source Source

	// Origin is the revision of the store the row came from, 0 if it came from none.
	Origin int64

	// Revision is the table's revision of the row's last change. Revisions of one table grow by
	// one with each change and are never used twice.
	Revision uint64

	// Changed is when the value last changed. Writing an equal value again leaves it.
	Changed time.Time
}

// Change is one row a [Cursor] had not delivered yet in this form.
type Change[K comparable, V any] struct {
	Row[K, V]

	// Deleted says that the row is gone. Value is then the last value it had, Source who deleted
	// it, Revision and Changed those of the deletion.
	Deleted bool
}

// Stamped is a value with the store revision it was last written at, for [Table.Replace].
type Stamped[V any] struct {
	Value  V
	Origin int64 // 0: the origin of the whole list
}

// SourceStatus is what a table knows of one of its sources.
type SourceStatus struct {
	Source Source

	// Synced says that the source has delivered everything it has.
	Synced bool

	// Confirmed is when the source's rows were last known to be those of the store they come
	// from; zero if that was never said.
	Confirmed time.Time

	// Rows is how many rows of the table are the source's.
	Rows int
}

// Equal is the equal function for a [Table] of comparable values.
func Equal[V comparable](a, b V) bool { return a == b }
