// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/apiserver/cache"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// span is a range of keys; to is exclusive, "" is behind every key.
type span struct{ from, to string }

// rights are the ranges that a user may read. They do not touch each other.
type rights []span

// rightsOf returns what the holder of a certificate of that name may read of a cluster: the rights
// that Cilium's etcd gives to the users of these names. Another name has none.
func rightsOf(user, cluster string) rights {
	under := func(prefix string) span { return span{prefix, clientv3.GetPrefixRangeEnd(prefix)} }
	peer := strings.TrimPrefix(user, kvstore.UserRemote+"-")
	switch {
	case user == kvstore.UserRemote, peer != user && schema.CheckClusterName(peer) == nil:
		own := schema.ClusterConfigPrefix + cluster
		return rights{
			under(schema.HeartbeatReadPrefix),
			under(schema.StatePrefix),
			{own, own + "\x00"},
			under(schema.SyncedPrefix + cluster + "/"),
		}
	case user == kvstore.UserLocal(cluster):
		return rights{
			under(schema.HeartbeatReadPrefix),
			under(schema.CachePrefix),
			under(schema.ClusterConfigPrefix),
			under(schema.SyncedPrefix),
		}
	}
	return nil
}

// allow reports whether all of a range of the protocol lies within the rights. A range whose end is
// not behind its beginning is empty; both have to lie within them all the same.
func (r rights) allow(key, end []byte) bool {
	from, to := cache.Bounds(key, end)
	for _, s := range r {
		if s.from <= from && from < s.to && to != "" && s.from < to && to <= s.to {
			return true
		}
	}
	return false
}
