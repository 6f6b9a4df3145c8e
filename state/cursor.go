// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import "slices"

// Cursor delivers the changes of one table to one reader, in the order of last change and
// coalesced per key: a row that changed five times since the reader looked comes once. It is used
// by one goroutine at a time.
//
// A cursor that is not read costs nothing but a tombstone for each row that it has delivered and
// that was deleted since.
type Cursor[K comparable, V any] struct {
	table *Table[K, V]

	// The rest is guarded by table.mu.
	next   uint32 // slot of the first change not delivered, none if all are
	passed uint64 // revision of the last change delivered
	seen   uint64 // Table.revision when Next last left nothing to deliver
	marks  uint64 // Table.marks when Next was last called
	waiter chan<- struct{}
	closed bool
}

// Cursor returns a cursor that stands before the first row: its first Next delivers every row
// there is. Close it when it is no longer read, else the deletions it is owed are kept for it.
func (t *Table[K, V]) Cursor() *Cursor[K, V] {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := &Cursor[K, V]{table: t, next: t.rows.head}
	t.cursors = append(t.cursors, c)
	return c
}

// Next returns the oldest changes not delivered yet, at most max of them (max <= 0: all), and
// takes note of the table's sync marks. It is empty if there are none. A row comes with its
// present value; a deletion comes only for a key the cursor may have delivered before.
func (c *Cursor[K, V]) Next(max int) []Change[K, V] {
	changes, _ := c.advance(max)
	return changes
}

// advance is Next, and returns the revision up to which everything is now delivered.
func (c *Cursor[K, V]) advance(max int) ([]Change[K, V], uint64) {
	t := c.table
	t.mu.Lock()
	defer t.mu.Unlock()
	c.marks = t.marks
	n := c.countLocked(max)
	var changes []Change[K, V]
	if n > 0 {
		changes = make([]Change[K, V], 0, n)
	}
	for c.next != none {
		i := c.next
		at := t.rows.at(i)
		dead := at.state == slotDead
		if !dead || owed(c.passed, at.born, at.revision) {
			if len(changes) == n {
				break
			}
			changes = append(changes, Change[K, V]{Row: t.rowLocked(i), Deleted: dead})
		}
		c.next, c.passed = at.next, at.revision
		if dead {
			t.reapLocked(i)
		}
	}
	t.packLocked()
	if c.next == none {
		c.seen = t.revision
		return changes, t.revision
	}
	return changes, c.passed
}

// countLocked returns how many changes the next advance(max) delivers.
func (c *Cursor[K, V]) countLocked(max int) int {
	rows, n, passed := &c.table.rows, 0, c.passed
	for i := c.next; i != none && (max <= 0 || n < max); {
		at := rows.at(i)
		if at.state != slotDead || owed(passed, at.born, at.revision) {
			n++
		}
		i, passed = at.next, at.revision
	}
	return n
}

// owed says whether a cursor that has passed the first revision has to deliver the end of a row
// that was born and deleted at the others.
func owed(passed, born, deleted uint64) bool { return passed >= born && passed < deleted }

// Close ends the cursor and lets go of the deletions kept for it. Further calls of Next return
// nothing; closing twice is allowed.
func (c *Cursor[K, V]) Close() {
	t := c.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	t.cursors = slices.DeleteFunc(t.cursors, func(o *Cursor[K, V]) bool { return o == c })
	c.wakeLocked()
	for i := c.next; i != none; {
		next := t.rows.at(i).next
		if t.rows.at(i).state == slotDead {
			t.reapLocked(i)
		}
		i = next
	}
	c.next = none
	t.packLocked()
}
