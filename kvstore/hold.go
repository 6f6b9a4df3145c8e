// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"time"

	"github.com/weft-net/weft/kvstore/schema"
)

// Why says why a row is held.
type Why string

const (
	// WhyLineage: the row is absent from a store that is not proven to be the one that had it.
	WhyLineage Why = "absent from a store of another lineage"
	// WhySpan: it was deleted in one revision together with rows of others, which no owner does.
	WhySpan Why = "deleted in one revision with rows of other owners"
	// WhyExpired: it went when its owner's lease ended, and too many others' ended with it. While
	// that is not known yet, such a row settles: it stays, and nothing is said to be held.
	WhyExpired Why = "gone with its owner's lease, as those of too many others"
)

// Names of owners that are no node's.
const (
	// OwnerOperator owns the rows of the cluster: definitions, services, cluster-config.
	OwnerOperator = schema.OperatorOwner
	// OwnerMirror owns the copy of a remote cluster in our store. Its word is the mirror's row.
	OwnerMirror = schema.MirrorOwner
	// OwnerEverybody owns what anybody may need: identity numbers, and rows whose owner is not
	// known. Such a row is confirmed gone when every node has spoken.
	OwnerEverybody = "*"
)

// noNode says that an owner is one of the cluster: it is down without withdrawing anything.
func noNode(owner string) bool { return owner == OwnerOperator || owner == OwnerMirror }

// heldGroup is rows that share their fate.
type heldGroup struct {
	owner    string
	why      Why
	revision int64         // of the list or the deletion
	born     time.Duration // on the guard's clock
}

// lost is the group of a row that was held already and is absent from the list, at a revision, of a
// store of another lineage too. Its limit goes on.
func (g heldGroup) lost(revision int64, clock time.Duration) heldGroup {
	if g.why == WhyLineage {
		clock = g.born
	}
	return heldGroup{g.owner, WhyLineage, revision, clock}
}

// ownerWord is an owners' row as it stands in the store.
type ownerWord struct {
	schema.Owner
	mod int64
}

// holdFacts is all that the end of a hold depends on.
type holdFacts struct {
	groups map[heldGroup]int // rows of each
	words  map[string]ownerWord
	known  map[string]bool // every owner that was ever heard of
	epoch  string
	clock  time.Duration // counts while the store is connected and its heartbeat moves
	limit  time.Duration
	brief  time.Duration
	owners bool // owners' rows are expected
	// expired is how long ago the leases of owners ended, of those within one lease time; nodes is
	// how many owners there are, settle how long is waited for more.
	expired map[string]time.Duration
	nodes   int
	mass    bool  // too many ended before
	adopted int64 // by decision, what was held before this revision goes
	settle  time.Duration
}

// holdVerdict is what becomes of held rows.
type holdVerdict struct {
	// end is what goes, each as soon as its watch has seen the store up to a revision: that of the word
	// or the decision by which it goes. 0: where the store was when its time was over.
	end         map[heldGroup]int64
	unconfirmed int  // owners of held rows that have not spoken since
	stuck       bool // the limit is over, and too many have not spoken
	mass        bool // leases of too many owners ended
}

// settling says that a row only waits to see whether the leases of others end as well.
func (g heldGroup) settling(mass bool) bool { return g.why == WhyExpired && !mass }

// occasion is what was held for one reason at one revision. Its limit counts from its last row.
type occasion struct {
	why      Why
	revision int64
}

// confirmed says whether an owner has said, after a revision, that all its rows are there, and when:
// they are there up to that revision.
func (f holdFacts) confirmed(owner string, revision int64) (at int64, said bool) {
	if owner == OwnerEverybody {
		for name := range f.known {
			if noNode(name) {
				continue
			}
			mod, ok := f.confirmed(name, revision)
			if !ok {
				return 0, false
			}
			at, said = max(at, mod), true
		}
		return at, said
	}
	w, ok := f.words[owner]
	if !ok || !w.Complete || f.epoch == "" || w.Epoch != f.epoch {
		return 0, false
	}
	// A node that has left says nothing more, whenever its absence is noticed.
	return w.mod, w.mod > revision || w.Left
}

// judgeHold decides which held rows are believed to be gone. A row whose owner has spoken is; the
// others go when their limit is over, unless so many owners are silent that the path to the store is
// the likelier reason.
func judgeHold(f holdFacts) holdVerdict {
	v := holdVerdict{end: map[heldGroup]int64{}, mass: f.mass || TooMany(len(f.expired), f.nodes)}
	silent := map[string]bool{}
	youngest := map[occasion]time.Duration{}
	for g := range f.groups {
		b := occasion{g.why, g.revision}
		if born, ok := youngest[b]; !ok || g.born > born {
			youngest[b] = g.born
		}
	}
	var aged []heldGroup
	for g := range f.groups {
		if at, said := f.confirmed(g.owner, g.revision); said {
			v.end[g] = at
			continue
		}
		if g.revision < f.adopted {
			v.end[g] = f.adopted - 1
			continue
		}
		if g.settling(v.mass) {
			if age, known := f.expired[g.owner]; !known || age >= f.settle {
				v.end[g] = 0
			}
			continue
		}
		silent[g.owner] = true
		limit := f.limit
		if g.why == WhySpan {
			limit = f.brief
		}
		if f.clock-youngest[occasion{g.why, g.revision}] >= limit {
			aged = append(aged, g)
		}
	}
	v.unconfirmed = len(silent)
	if len(aged) == 0 {
		return v
	}
	nodes := 0
	for owner := range silent {
		if owner != OwnerEverybody && !noNode(owner) {
			nodes++
		}
	}
	total := 0
	for name := range f.known {
		if !noNode(name) {
			total++
		}
	}
	if f.owners && TooMany(nodes, total) {
		v.stuck = true
		return v
	}
	for _, g := range aged {
		// An operator or a mirror that is down withdraws nothing; one that never spoke cannot be waited for.
		if f.owners && noNode(g.owner) && f.known[g.owner] {
			v.stuck = true
			continue
		}
		v.end[g] = 0
	}
	return v
}

// TooMany says whether so many of all owners went or are silent that a lost path is the likelier
// reason: more than two and more than 20 %, or all of two or more.
func TooMany(n, total int) bool {
	return n > 2 && 5*n > total || n >= 2 && n >= total
}

// spans returns, per revision of a message, whether its deletions are of several owners. Deletions
// of OwnerEverybody, of the operator's rows and of copies are each an owner of their own: no writer
// deletes two of them at once.
func spans(deletions []deletion) map[int64]bool {
	first := map[int64]string{}
	out := map[int64]bool{}
	for _, d := range deletions {
		id := d.owner
		if id == OwnerEverybody || noNode(id) {
			id = "/" + d.key
		}
		switch was, seen := first[d.revision]; {
		case !seen:
			first[d.revision] = id
		case was != id:
			out[d.revision] = true
		}
	}
	return out
}

// deletion is one observed deletion of a row that was known.
type deletion struct {
	revision int64
	key      string
	owner    string
}
