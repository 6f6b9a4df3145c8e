// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import "time"

// VIP says which service holds a virtual address. It is comparable.
type VIP struct {
	Namespace, Name string
	Extra           Extra
}

// Epoch marks one life of a store: it is written once, and anew by whoever finds that the store was
// replaced. It is comparable.
type Epoch struct {
	// ID is 32 hexadecimal digits, random.
	ID      string
	Created time.Time
	Extra   Extra
}

// Resting is an identity number that was freed. It must not be given out before its rest is over: a
// remote that still believes the old labels must not meet it with new ones. It is comparable.
type Resting struct {
	// Freed is when, by the clock of whoever freed it.
	Freed time.Time
	// Labels are those the number stood for, for people.
	Labels string
	Extra  Extra
}

// Owner is what a node says about its own rows, at intervals. It is comparable.
type Owner struct {
	// Epoch is the ID of the epoch it speaks of.
	Epoch string
	// Rows is how many rows of its own it counts.
	Rows int
	// Complete: it has seen all of them in the store.
	Complete bool
	// Left: it was the last word of a node that left in order. It has no rows any more, and nobody waits
	// for another word.
	Left  bool
	Extra Extra
}
