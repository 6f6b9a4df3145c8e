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

// counts asks the store, see ask.
func (g *Guard) counts(ctx context.Context, f *follower, asked []count) ([]int64, error) {
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
		resp, err := g.ask(ctx, f, ops)
		if err != nil {
			return nil, err
		}
		for _, r := range resp.Responses {
			out = append(out, r.GetResponseRange().Count)
		}
	}
	return out, nil
}

// ask reads what the store had at revisions that were just seen. It waits for a store that does not
// answer: that a request took too long says nothing of anybody's rows. Any other error is an answer that
// cannot be had any more, or not by us, except where ctx has ended. The follower that asks has no
// connection meanwhile.
func (g *Guard) ask(ctx context.Context, f *follower, ops []clientv3.Op) (*clientv3.TxnResponse, error) {
	follow := g.cfg.Follow.follow("")
	pause := backoff{min: follow.minBackoff, max: follow.maxBackoff}
	away := false
	answered := func() {
		if away {
			f.update(func(s *followStatus) { s.connected, s.lastError = true, nil })
		}
	}
	for {
		resp, err := f.c.Txn(ctx).Then(ops...).Commit()
		switch {
		case err == nil:
			answered()
			g.mu.Lock()
			other := g.lineage.clusterID != 0 && resp.Header.ClusterId != g.lineage.clusterID
			g.mu.Unlock()
			if other {
				return nil, ErrStoreChanged
			}
			return resp, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case refused(err) || !transient(err) && !explained(err):
			answered()
			return nil, err
		}
		away = true
		f.update(func(s *followStatus) { s.connected, s.lastError, s.lastErrorAt = false, err, time.Now() })
		if !pause.pause(ctx, f.c) {
			return nil, ctx.Err()
		}
	}
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
// cannot be had any more says so of all, one that is refused of none. An error is that of ctx.
func (g *Guard) went(ctx context.Context, f *follower, names []string, asked []count, say func(counts []int64, i int) bool) ([]string, error) {
	if len(asked) == 0 {
		return nil, nil
	}
	counts, err := g.counts(ctx, f, asked)
	switch {
	case refused(err):
		return nil, nil
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	}
	var out []string
	for i, name := range names {
		if err != nil || say(counts, i) {
			out = append(out, name)
		}
	}
	return out, nil
}

// withoutNode returns those owners whose node row was not there at a revision.
func (g *Guard) withoutNode(ctx context.Context, f *follower, owners map[string]int64) (map[string]int64, error) {
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
	names, err := g.went(ctx, f, names, asked, func(counts []int64, i int) bool { return counts[i] == 0 })
	for _, name := range names {
		out[name] = owners[name]
	}
	return out, err
}

// witnesses is how many of the addresses of a node are asked for, to see whether they went with it.
const witnesses = 3

// withTheirRows returns those nodes whose row went in one revision with other rows of theirs: its
// owners' row, or, where there is none, addresses. A node that leaves in order takes its row back
// alone.
func (g *Guard) withTheirRows(ctx context.Context, f *follower, nodes map[string]int64) (map[string]int64, error) {
	g.mu.Lock()
	out := g.foundOutLocked(nodes)
	g.mu.Unlock()
	var names []string
	var asked []count
	for name, keys := range g.rowsBeside(nodes, out) {
		for _, a := range keys {
			a.revision = nodes[name]
			before := a
			before.revision--
			asked = append(asked, before, a)
			names = append(names, name)
		}
	}
	names, err := g.went(ctx, f, names, asked, func(counts []int64, i int) bool { return counts[2*i+1] < counts[2*i] })
	for _, name := range names {
		out[name] = nodes[name]
	}
	return out, err
}

// rowsBeside returns by what it shows that rows of nodes went with theirs, of those nodes that are not
// excepted. An owners' row is enough. Of addresses it is some that are known, and those that stand for
// the longest: to count all addresses of the cluster, before and after each node, is far more for the
// store. Only while they are not known there is no other way.
func (g *Guard) rowsBeside(nodes, except map[string]int64) map[string][]count {
	out := map[string][]count{}
	without := map[string]bool{}
	g.mu.Lock()
	for name := range nodes {
		if _, excepted := except[name]; excepted {
			continue
		}
		out[name] = nil
		if g.cfg.Owners && g.weft {
			out[name] = []count{{key: schema.OwnersPrefix + name}}
		}
		if _, speaks := g.words[name]; !speaks {
			without[name] = true
		}
	}
	g.mu.Unlock()
	if len(without) == 0 {
		return out
	}
	for _, m := range g.membersNow() {
		if resourceOf(m.prefix()) != "ips" {
			continue
		}
		known := m.rowsOf(without, witnesses)
		for name := range without {
			if known == nil {
				out[name] = append(out[name], count{key: m.prefix(), prefix: true})
			}
			for _, key := range known[name] {
				out[name] = append(out[name], count{key: key})
			}
		}
	}
	return out
}
