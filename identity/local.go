// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"container/heap"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
)

// ErrLocalExhausted means that all local numbers are in use.
var ErrLocalExhausted = errors.New("local identity numbers are exhausted")

// LastLocal is the last number of the local scope.
const LastLocal = LocalScope | (1<<24 - 1)

// Local numbers prefixes outside the mesh for this node alone. The numbers never go to the store or
// onto the wire. Users of a prefix are counted.
type Local struct {
	mu   sync.Mutex
	uses map[netip.Prefix]*localUse
	ids  map[ID]netip.Prefix
	next ID     // the lowest number never used, LocalScope+1 at first
	free idHeap // numbers below next that are not in use; may hold ones that Restore took since
}

type localUse struct {
	id    ID
	users int
}

// NewLocal returns an empty Local.
func NewLocal() *Local {
	return &Local{uses: map[netip.Prefix]*localUse{}, ids: map[ID]netip.Prefix{}, next: LocalScope + 1}
}

// Acquire adds a user to a prefix (host bits are ignored) and returns its number: the lowest free one
// if the prefix has none yet, in which case the bool is true.
func (l *Local) Acquire(p netip.Prefix) (ID, bool, error) {
	p, err := canonical(p)
	if err != nil {
		return Unknown, false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if u := l.uses[p]; u != nil {
		u.users++
		return u.id, false, nil
	}
	for l.free.Len() > 0 {
		id := heap.Pop(&l.free).(ID)
		if _, taken := l.ids[id]; !taken {
			l.takeLocked(p, id)
			return id, true, nil
		}
	}
	for l.next <= LastLocal {
		id := l.next
		l.next++
		if _, taken := l.ids[id]; !taken {
			l.takeLocked(p, id)
			return id, true, nil
		}
	}
	return Unknown, false, fmt.Errorf("number for %s: %w", p, ErrLocalExhausted)
}

// Restore is Acquire for a prefix that had a number before a restart: maps that are still in force
// know it by that one. It is an error if another prefix has the number or the prefix another number.
func (l *Local) Restore(p netip.Prefix, id ID) error {
	p, err := canonical(p)
	if err != nil {
		return err
	}
	if id <= LocalScope || id > LastLocal {
		return fmt.Errorf("restore %s: number %d is not local", p, id)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if u := l.uses[p]; u != nil {
		if u.id != id {
			return fmt.Errorf("restore %s: it has number %d, not %d", p, u.id, id)
		}
		u.users++
		return nil
	}
	if other, taken := l.ids[id]; taken {
		return fmt.Errorf("restore %s: number %d is that of %s", p, id, other)
	}
	l.takeLocked(p, id)
	return nil
}

func (l *Local) takeLocked(p netip.Prefix, id ID) {
	l.uses[p] = &localUse{id: id, users: 1}
	l.ids[id] = p
}

// Release takes a user from a prefix and tells whether it was the last: then the number is free for
// others. Releasing a prefix that nobody uses does nothing.
func (l *Local) Release(p netip.Prefix) bool {
	p, err := canonical(p)
	if err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	u := l.uses[p]
	if u == nil {
		return false
	}
	if u.users--; u.users > 0 {
		return false
	}
	delete(l.uses, p)
	delete(l.ids, u.id)
	if u.id < l.next {
		heap.Push(&l.free, u.id)
	}
	return true
}

// Prefix returns the prefix that has a number.
func (l *Local) Prefix(id ID) (netip.Prefix, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.ids[id]
	return p, ok
}

// Len returns how many numbers are in use.
func (l *Local) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.ids)
}

func canonical(p netip.Prefix) (netip.Prefix, error) {
	if !p.IsValid() || p.Addr().Is4In6() {
		return p, fmt.Errorf("prefix %q: not one", p)
	}
	return p.Masked(), nil
}

// CIDRLabels returns the labels of a prefix: its own, and that it is outside. Keys may not hold the
// colons of IPv6, hyphens stand for them.
func CIDRLabels(p netip.Prefix) Labels {
	text := p.Masked().String()
	if p.Addr().Is6() {
		text = strings.ReplaceAll(text, ":", "-")
		if strings.HasPrefix(text, "-") {
			text = "0" + text
		}
		text = strings.Replace(text, "-/", "-0/", 1)
	}
	return NewLabels(Label{Source: SourceCIDR, Key: text}, reserved("world"))
}

// idHeap is a heap.Interface of numbers, the lowest first.
type idHeap []ID

func (h idHeap) Len() int           { return len(h) }
func (h idHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h idHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *idHeap) Push(x any)        { *h = append(*h, x.(ID)) }
func (h *idHeap) Pop() any {
	old := *h
	id := old[len(old)-1]
	*h = old[:len(old)-1]
	return id
}
