// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"slices"
	"sort"
)

// fanout is the most keys of a node. A change copies one node of each level, so wide nodes make
// reads fast and changes of the shape dear.
const fanout = 48

// tree is an ordered set of items that is never changed: set and remove return another one, which
// shares all nodes but those on the path. Whoever holds a tree reads it without a lock, for ever.
//
// A node is not joined with its neighbour when it gets small, only taken out when it is empty: keys
// that come where keys went fill it again.
type tree struct{ root *node }

// node is a leaf with items, or has children. keys are those of the items, or the smallest key that
// each child ever had.
type node struct {
	owner *edit
	keys  []string
	items []*item
	kids  []*node
	size  int // items below
}

// edit marks the nodes that were made in the same change and may be written in it.
type edit struct{ _ byte }

func (t tree) len() int {
	if t.root == nil {
		return 0
	}
	return t.root.size
}

// get returns the item of a key, nil without.
func (t tree) get(key string) *item {
	n := t.root
	for n != nil && n.kids != nil {
		n = n.kids[n.child(key)]
	}
	if n == nil {
		return nil
	}
	if i := sort.SearchStrings(n.keys, key); i < len(n.keys) && n.keys[i] == key {
		return n.items[i]
	}
	return nil
}

// set returns the tree with an item in place of that of its key.
func (t tree) set(e *edit, it *item) tree {
	if t.root == nil {
		return tree{&node{owner: e, keys: []string{it.key}, items: []*item{it}, size: 1}}
	}
	root, right := t.root.set(e, it)
	if right == nil {
		return tree{root}
	}
	return tree{&node{
		owner: e, keys: []string{root.keys[0], right.keys[0]}, kids: []*node{root, right},
		size: root.size + right.size,
	}}
}

// remove returns the tree without a key.
func (t tree) remove(e *edit, key string) tree {
	if t.get(key) == nil {
		return t
	}
	root := t.root.remove(e, key)
	for root != nil && len(root.kids) == 1 {
		root = root.kids[0]
	}
	return tree{root}
}

// ascend calls fn for the items from one key up to another, exclusive, until fn returns false. An
// end of "" is behind every key.
func (t tree) ascend(from, to string, fn func(*item) bool) {
	if t.root != nil {
		t.root.ascend(from, to, fn)
	}
}

// count returns the number of items from one key up to another, exclusive.
func (t tree) count(from, to string) int {
	if to != "" && to <= from {
		return 0
	}
	n := t.len() - t.before(from)
	if to != "" {
		n -= t.len() - t.before(to)
	}
	return n
}

// before returns the number of items with a smaller key.
func (t tree) before(key string) (n int) {
	at := t.root
	for at != nil && at.kids != nil {
		i := at.child(key)
		for _, k := range at.kids[:i] {
			n += k.size
		}
		at = at.kids[i]
	}
	if at != nil {
		n += sort.SearchStrings(at.keys, key)
	}
	return n
}

// child is the index of the child that a key belongs to.
func (n *node) child(key string) int {
	i := sort.Search(len(n.keys), func(i int) bool { return n.keys[i] > key })
	return max(i-1, 0)
}

func (n *node) ascend(from, to string, fn func(*item) bool) bool {
	if n.kids == nil {
		for i := sort.SearchStrings(n.keys, from); i < len(n.keys); i++ {
			if to != "" && n.keys[i] >= to || !fn(n.items[i]) {
				return false
			}
		}
		return true
	}
	for i := n.child(from); i < len(n.kids); i++ {
		if to != "" && i > 0 && n.keys[i] >= to {
			return false
		}
		if !n.kids[i].ascend(from, to, fn) {
			return false
		}
	}
	return true
}

// writable returns the node itself if it was made in this change, else a copy.
func (n *node) writable(e *edit) *node {
	if n.owner == e {
		return n
	}
	c := &node{owner: e, size: n.size, keys: grown(n.keys)}
	if n.kids != nil {
		c.kids = grown(n.kids)
	} else {
		c.items = grown(n.items)
	}
	return c
}

// grown is a copy with room for one more.
func grown[T any](s []T) []T { return append(make([]T, 0, len(s)+1), s...) }

// set returns the node with the item, and what did not fit in it.
func (n *node) set(e *edit, it *item) (*node, *node) {
	n = n.writable(e)
	if n.kids == nil {
		i := sort.SearchStrings(n.keys, it.key)
		if i < len(n.keys) && n.keys[i] == it.key {
			n.items[i] = it
			return n, nil
		}
		n.keys = slices.Insert(n.keys, i, it.key)
		n.items = slices.Insert(n.items, i, it)
		n.size++
		return n, n.split(e)
	}
	i := n.child(it.key)
	before := n.kids[i].size
	kid, right := n.kids[i].set(e, it)
	n.kids[i] = kid
	n.keys[i] = min(n.keys[i], it.key)
	n.size += kid.size - before
	if right == nil {
		return n, nil
	}
	n.size += right.size
	n.keys = slices.Insert(n.keys, i+1, right.keys[0])
	n.kids = slices.Insert(n.kids, i+1, right)
	return n, n.split(e)
}

// split takes the upper half away from a node that is too large.
func (n *node) split(e *edit) *node {
	if len(n.keys) <= fanout {
		return nil
	}
	at := len(n.keys) / 2
	right := &node{owner: e, keys: slices.Clone(n.keys[at:])}
	n.keys = slices.Delete(n.keys, at, len(n.keys))
	if n.kids != nil {
		right.kids = slices.Clone(n.kids[at:])
		n.kids = slices.Delete(n.kids, at, len(n.kids))
		for _, k := range right.kids {
			right.size += k.size
		}
	} else {
		right.items = slices.Clone(n.items[at:])
		n.items = slices.Delete(n.items, at, len(n.items))
		right.size = len(right.items)
	}
	n.size -= right.size
	return right
}

// remove returns the node without a key that is there, nil if nothing is left.
func (n *node) remove(e *edit, key string) *node {
	n = n.writable(e)
	if n.kids == nil {
		i := sort.SearchStrings(n.keys, key)
		n.keys = slices.Delete(n.keys, i, i+1)
		n.items = slices.Delete(n.items, i, i+1)
	} else {
		i := n.child(key)
		if kid := n.kids[i].remove(e, key); kid != nil {
			n.kids[i] = kid
		} else {
			n.keys = slices.Delete(n.keys, i, i+1)
			n.kids = slices.Delete(n.kids, i, i+1)
		}
	}
	n.size--
	if len(n.keys) == 0 {
		return nil
	}
	return n
}
