// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
)

// ErrNumbersUsed says that every number is taken or rests.
var ErrNumbersUsed = errors.New("no free service number")

// Number names a frontend in the datapath; zero names none.
type Number uint32

// Numbers gives frontends their numbers on one node. A number stays with its frontend, and is not
// given to another while flows may still name it: Release makes it rest, Free ends that. It is a
// plain value machine: the same calls give the same numbers.
type Numbers struct {
	limit Number
	of    map[Frontend]Number
	taken map[Number]bool // true: in use, false: resting
	last  Number
}

// NewNumbers gives out the numbers 1 to limit.
func NewNumbers(limit Number) *Numbers {
	return &Numbers{limit: limit, of: make(map[Frontend]Number), taken: make(map[Number]bool)}
}

// Restore enters what an earlier run left behind. A number that is already somebody's is refused.
func (n *Numbers) Restore(f Frontend, number Number) error {
	if number == 0 || number > n.limit {
		return fmt.Errorf("restore number %d of %s: want 1 to %d", number, f, n.limit)
	}
	if n.taken[number] {
		return fmt.Errorf("restore number %d of %s: taken", number, f)
	}
	if old, ok := n.of[f]; ok && old != number {
		return fmt.Errorf("restore number %d of %s: it has %d", number, f, old)
	}
	n.of[f], n.taken[number] = number, true
	n.last = max(n.last, number)
	return nil
}

// Rest keeps a number that only flows name from being given out, as Release does.
func (n *Numbers) Rest(number Number) {
	if _, ok := n.taken[number]; !ok && number != 0 && number <= n.limit {
		n.taken[number] = false
	}
}

// Assign returns the frontend's number, and gives it one if it has none: the next free one after
// the last that was given, so that a freed number rests as long as the range allows.
func (n *Numbers) Assign(f Frontend) (Number, error) {
	if number, ok := n.of[f]; ok {
		return number, nil
	}
	if len(n.taken) >= int(n.limit) {
		return 0, fmt.Errorf("number for %s: %w", f, ErrNumbersUsed)
	}
	number := n.last
	for {
		if number++; number > n.limit {
			number = 1
		}
		if _, taken := n.taken[number]; !taken {
			break
		}
	}
	n.of[f], n.taken[number], n.last = number, true, number
	return number, nil
}

// Release takes the number from a frontend that is gone and lets it rest. It returns the number, or
// zero if the frontend had none.
func (n *Numbers) Release(f Frontend) Number {
	number, ok := n.of[f]
	if !ok {
		return 0
	}
	delete(n.of, f)
	n.taken[number] = false
	return number
}

// Free ends the rest of a number: no flow names it any more. A number in use stays so.
func (n *Numbers) Free(number Number) {
	if used, ok := n.taken[number]; ok && !used {
		delete(n.taken, number)
	}
}

// Resting returns how many numbers rest and how many are in use.
func (n *Numbers) Resting() (resting, used int) { return len(n.taken) - len(n.of), len(n.of) }
