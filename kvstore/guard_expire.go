// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore/schema"
)

// expiry is the end of an owner's lease, by which all its rows went at once.
type expiry struct {
	revision int64
	at       time.Duration // on the guard's time of connection
}

// expired says that an owner's lease had ended at a revision.
func (g *Guard) expired(owner string, revision int64) {
	g.mu.Lock()
	g.expiredLocked(owner, revision)
	g.mu.Unlock()
	g.nudge()
}

func (g *Guard) expiredLocked(owner string, revision int64) {
	if e, ok := g.expiries[owner]; !ok || e.revision != revision {
		g.expiries[owner] = expiry{revision, g.online}
	}
}

// nodeIs remembers the row of a node.
func (g *Guard) nodeIs(name, key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.nodeKeys[name] = key
}

// nodeIsGone forgets the row of a node.
func (g *Guard) nodeIsGone(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.nodeKeys, name)
}

// nodesAre says which nodes there are.
func (g *Guard) nodesAre(keys map[string]string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.nodeKeys = keys
}

// count is a question to the store: how many keys were there at a revision.
type count struct {
	key      string
	prefix   bool
	revision int64
}

// maxCounts bounds how many are asked in one transaction; etcd takes 128 operations.
const maxCounts = 100

// counts asks the store.
func (g *Guard) counts(ctx context.Context, c *Client, asked []count) ([]int64, error) {
	out := make([]int64, 0, len(asked))
	for from := 0; from < len(asked); from += maxCounts {
		var ops []clientv3.Op
		for _, a := range asked[from:min(from+maxCounts, len(asked))] {
			o := []clientv3.OpOption{clientv3.WithCountOnly(), clientv3.WithRev(a.revision)}
			if a.prefix {
				o = append(o, clientv3.WithPrefix())
			}
			ops = append(ops, clientv3.OpGet(a.key, o...))
		}
		resp, err := c.Txn(ctx).Then(ops...).Commit()
		if err != nil {
			return nil, err
		}
		for _, r := range resp.Responses {
			out = append(out, r.GetResponseRange().Count)
		}
	}
	return out, nil
}

// refused says that the store does not let us ask.
func refused(err error) bool {
	var denied *EndpointError
	return errors.As(err, &denied) && denied.Reason == ReasonUnauthorised
}

// foundOutLocked returns those owners of whom another watch found out that their leases had ended at the
// same revision.
func (g *Guard) foundOutLocked(owners map[string]int64) map[string]int64 {
	out := map[string]int64{}
	for owner, revision := range owners {
		if g.expiries[owner].revision == revision {
			out[owner] = revision
		}
	}
	return out
}

// went asks the store and returns those names of which the counts say that they went. An answer that
// cannot be had any more says so of all, one that is refused of none.
func (g *Guard) went(ctx context.Context, c *Client, names []string, asked []count, say func(counts []int64, i int) bool) []string {
	if len(asked) == 0 {
		return nil
	}
	counts, err := g.counts(ctx, c, asked)
	if refused(err) {
		return nil
	}
	var out []string
	for i, name := range names {
		if err != nil || say(counts, i) {
			out = append(out, name)
		}
	}
	return out
}

// withoutNode returns those owners whose node row was not there at a revision.
func (g *Guard) withoutNode(ctx context.Context, c *Client, owners map[string]int64) map[string]int64 {
	var names []string
	var asked []count
	g.mu.Lock()
	for owner, revision := range owners {
		if key, ok := g.nodeKeys[owner]; ok && g.expiries[owner].revision != revision {
			names = append(names, owner)
			asked = append(asked, count{key: key, revision: revision})
		}
	}
	out := g.foundOutLocked(owners)
	g.mu.Unlock()
	for _, name := range g.went(ctx, c, names, asked, func(counts []int64, i int) bool { return counts[i] == 0 }) {
		out[name] = owners[name]
	}
	return out
}

// withTheirRows returns those nodes whose row went in one revision with other rows of theirs: its
// owners' row, or, where there are none, addresses. A node that leaves in order takes its row back
// alone.
func (g *Guard) withTheirRows(ctx context.Context, c *Client, nodes map[string]int64) map[string]int64 {
	g.mu.Lock()
	weft := g.cfg.Owners && g.weft
	out := g.foundOutLocked(nodes)
	g.mu.Unlock()
	var addresses []string
	for _, m := range g.membersNow() {
		if resourceOf(m.prefix()) == "ips" {
			addresses = append(addresses, m.prefix())
		}
	}
	var names []string
	var asked []count
	for name, revision := range nodes {
		if _, known := out[name]; known {
			continue
		}
		var of []count
		if weft {
			of = append(of, count{key: schema.OwnersPrefix + name, revision: revision})
		}
		for _, prefix := range addresses {
			of = append(of, count{key: prefix, prefix: true, revision: revision})
		}
		for _, a := range of {
			before := a
			before.revision--
			asked = append(asked, before, a)
			names = append(names, name)
		}
	}
	for _, name := range g.went(ctx, c, names, asked, func(counts []int64, i int) bool { return counts[2*i+1] < counts[2*i] }) {
		out[name] = nodes[name]
	}
	return out
}
