// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package history

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// The guarantees that a history can show broken, by the names in docs/guarantees.md. The first
// three are what "no stale after sync" is made of.
var (
	ErrBrokeOrdered     = errors.New("ordered: a watch never goes back")
	ErrBrokeNoGap       = errors.New("no gap: a watch misses no change up to what it confirms")
	ErrBrokeNoDuplicate = errors.New("no duplicate: a watch delivers a change once")
	ErrBrokeNoStale     = errors.New("no stale after sync: what calls itself synced equals the store")
	ErrBrokeMassDelete  = errors.New("no mass delete: what lives stays, and what its owner deleted goes at once")
	ErrBrokeOneNumber   = errors.New("one set, one number: a label set has one number, a number one label set")
	ErrBrokeInvisible   = errors.New("invisible restart: no connect fails and no session is reset")
)

// Limits are the bounds that a history is judged by. The zero value has the defaults.
type Limits struct {
	// InForce is how long after an owner's deletion, or after the end of the faults that it fell
	// into, the row may still be somewhere. Default 10 s.
	InForce time.Duration
	// Most is how many violations of one guarantee are told in full; the rest is left out.
	// Default 5.
	Most int
}

// Violation is a guarantee that the history shows broken.
type Violation struct {
	Broke   error    // one of the ErrBroke values
	What    string   // what happened, in one sentence
	Key     string   // of the row concerned, if there is one
	During  []string // names of the faults that were open
	Excerpt []Record // the shortest part of the history that shows it
}

// Error tells the violation with its excerpt.
func (v Violation) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "broke %v\n  %s", v.Broke, v.What)
	if len(v.During) > 0 {
		fmt.Fprintf(&b, "\n  during %s", strings.Join(v.During, ", "))
	}
	for _, r := range v.Excerpt {
		b.WriteString("\n    ")
		b.WriteString(r.String())
	}
	return b.String()
}

// Unwrap makes errors.Is find the guarantee.
func (v Violation) Unwrap() error { return v.Broke }

// finding is a violation as a validator finds it: at is the place of the record that completed it,
// about the part of the history that can have to do with it.
type finding struct {
	broke error
	what  string
	key   string
	at    int
	about func(Record) bool
}

// A validator judges a history by one or more guarantees. What it finds depends on the records that
// about lets through only, so that an excerpt can be judged again.
type validator func(records []Record, l Limits) []finding

func validators() []validator {
	return []validator{checkWatches, checkStale, checkRows, checkNumbers, checkClients}
}

// Check judges a history in the order of its records. Nothing found means that no guarantee is shown
// broken, which says as much as the history does.
func Check(records []Record, l Limits) []Violation {
	if l.InForce <= 0 {
		l.InForce = 10 * time.Second
	}
	if l.Most <= 0 {
		l.Most = 5
	}
	var all []Violation
	for _, check := range validators() {
		told := map[error]int{}
		for _, f := range check(records, l) {
			if told[f.broke]++; told[f.broke] > l.Most {
				continue
			}
			all = append(all, Violation{
				Broke: f.broke, What: f.what, Key: f.key,
				During:  open(records, f.at),
				Excerpt: minimise(records, check, l, f),
			})
		}
	}
	return all
}

// open are the names of the faults that were open at a record.
func open(records []Record, at int) []string {
	var names []string
	for _, r := range records[:min(at+1, len(records))] {
		switch r.Kind {
		case Fault:
			names = append(names, r.Name)
		case Healed:
			for i, name := range names {
				if name == r.Name {
					names = append(names[:i:i], names[i+1:]...)
					break
				}
			}
		}
	}
	return names
}
