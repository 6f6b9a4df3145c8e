// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

// Feed hands the changes of one Next to something that keeps rows of its own: set gets rows that
// are new or changed, remove the keys of those that are gone.
func (c *Cursor[K, V]) Feed(max int, set func(K, V), remove func(K)) {
	for _, change := range c.Next(max) {
		if change.Deleted {
			remove(change.Key)
		} else {
			set(change.Key, change.Value)
		}
	}
}
