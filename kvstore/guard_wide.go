// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore/schema"
)

// wide asks the store whether a revision, in which rows of one owner under a prefix were deleted,
// deleted more than an owner does: rows of the cluster, the epoch or the heartbeat, and beside a row
// of the cluster anything else. An answer that cannot be had means that it may have. The error is that of ctx.
func (g *Guard) wide(ctx context.Context, f *follower, revision int64, prefix, owner string) (bool, error) {
	ofCluster := noNode(owner) || owner == OwnerEverybody
	type span struct {
		key  string
		opts []clientv3.OpOption
	}
	asked := []span{{key: schema.HeartbeatKey}}
	g.mu.Lock()
	weft := g.weft
	g.mu.Unlock()
	if weft {
		asked = append(asked, span{key: schema.EpochKey})
	}
	for _, m := range g.membersNow() {
		p := m.prefix()
		if p != prefix && (ofCluster || !nodeOwned(p)) {
			asked = append(asked, span{p, []clientv3.OpOption{clientv3.WithPrefix()}})
		}
	}
	var ops []clientv3.Op
	for _, s := range asked {
		for _, at := range []int64{revision - 1, revision} {
			ops = append(ops, clientv3.OpGet(s.key, append(s.opts[:len(s.opts):len(s.opts)], clientv3.WithCountOnly(), clientv3.WithRev(at))...))
		}
	}
	resp, err := g.ask(ctx, f, ops)
	if err != nil {
		return !refused(err), ctx.Err()
	}
	for i := 0; i+1 < len(resp.Responses); i += 2 {
		if resp.Responses[i+1].GetResponseRange().Count < resp.Responses[i].GetResponseRange().Count {
			return true, nil
		}
	}
	return false, nil
}

// nodeOwned says whether the rows under a prefix are those of nodes.
func nodeOwned(prefix string) bool {
	switch resourceOf(prefix) {
	case "nodes", "ips", "endpoints":
		return true
	}
	return false
}
