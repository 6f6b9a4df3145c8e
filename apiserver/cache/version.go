// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// item is one key with its versions, newest first. A key that was deleted stays until its deletion
// leaves the history.
type item struct {
	key  string
	head atomic.Pointer[version]
}

// version is a key as it was from one revision on. kv is never written after it is here; that of a
// deletion has only key and mod revision, as in etcd's events.
type version struct {
	kv *mvccpb.KeyValue
	// prev is what was before. It is cut off when the history no longer reaches back to it: a
	// reader that may have met the cut finds out by the floor, which is raised before.
	prev atomic.Pointer[version]
}

func (v *version) deleted() bool { return v.kv.CreateRevision == 0 }

// at returns the key as it was at a revision, nil if it did not exist.
func (it *item) at(revision int64) *version {
	v := it.head.Load()
	for v != nil && v.kv.ModRevision > revision {
		v = v.prev.Load()
	}
	if v == nil || v.deleted() {
		return nil
	}
	return v
}

// oldest returns the first version that is known.
func (it *item) oldest() *version {
	v := it.head.Load()
	for {
		p := v.prev.Load()
		if p == nil {
			return v
		}
		v = p
	}
}
