// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// peers are the clusters that joined ours, as our own store has them: what they joined with is pinned.
type peers struct {
	table *state.Table[string, schema.Peer]
	watch *kvstore.Watch[string, schema.Peer]
	taken chan struct{} // closed when the pins of the first list are in force
}

func newPeers(c *kvstore.Client, follow kvstore.WatchConfig, log *slog.Logger) *peers {
	p := &peers{table: state.NewTable[string]("peers", schema.Peer.Equal), taken: make(chan struct{})}
	follow.Source, follow.Guard = ownStore, nil
	p.watch = kvstore.NewWatch(c, schema.Peers(), p.table, follow, log)
	return p
}

// followPeers pins what peers joined with, until ctx ends.
func (m *Mesh) followPeers(ctx context.Context) error {
	cursor := m.peers.table.Cursor()
	defer cursor.Close()
	take := func() error {
		for _, c := range cursor.Next(0) {
			// A row that is gone unpins nothing: in a store that lost it nobody has changed.
			if !c.Deleted {
				m.pin(c.Key, c.Row.Value)
			}
		}
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.peers.watch.Run(ctx) })
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-m.peers.watch.Listed():
		}
		_ = take()
		close(m.peers.taken)
		return state.Derive(ctx, nil, "", take, cursor)
	})
	return g.Wait()
}

// left tells whether somebody has ended the peering with a cluster since a moment. One that was configured
// by hand after that is another matter.
func (p *peers) left(name string, since time.Time) bool {
	if p == nil {
		return false
	}
	row, ok := p.table.Get(name)
	return ok && row.Value.State == schema.PeerLeft && !row.Value.Since.Before(since.Truncate(time.Second)) // as rows have it
}

// heard tells whether our own store has said what peers joined with. Without a store nobody will.
func (p *peers) heard() bool {
	if p == nil {
		return true
	}
	select {
	case <-p.taken:
		return true
	default:
		return false
	}
}

// pin takes over a peer's row. One that waits was not let in, and one that left is nobody's peer.
func (m *Mesh) pin(name string, p schema.Peer) {
	pin := Pin{ID: p.ID, PodCIDRs: p.PodCIDRs}
	if p.State != schema.PeerPending && p.State != schema.PeerJoined {
		pin = Pin{}
	}
	if m.claims.pin(name, pin) {
		m.log.Info("remote cluster pinned", "cluster", name, "cluster_id", pin.ID, "pod_cidrs", pin.PodCIDRs)
		select {
		case m.repinned <- struct{}{}: // all is judged again, once for many pins
		default:
		}
	}
	m.ids.pin(name, pin.ID)
	m.lookAgain()
}

// known waits until it is known what peers joined with, but not longer than our own store may take to
// answer: while it is away they are taken as they are. The error is that of ctx.
func (p *peers) known(ctx context.Context, longest time.Duration) error {
	late := time.NewTimer(longest)
	defer late.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-late.C:
	case <-p.taken:
	}
	return nil
}

// pin says with what a remote has joined, the zero Pin that it is not known, and tells whether that
// changed anything.
func (c *claims) pin(name string, pin Pin) (changed bool) {
	pin.PodCIDRs = slices.Clone(pin.PodCIDRs)
	c.mu.Lock()
	old := c.pins[name]
	changed = old.ID != pin.ID || !slices.Equal(old.PodCIDRs, pin.PodCIDRs)
	if pin.ID == 0 {
		delete(c.pins, name)
	} else {
		c.pins[name] = pin
	}
	c.mu.Unlock()
	if !changed {
		return false
	}
	// A pin claims whether the remote's nodes are known or not.
	key := schema.NodeKey{Cluster: name}
	if pin.ID == 0 {
		c.remove(key)
	} else {
		c.set(key, schema.Node{ClusterID: pin.ID, PodCIDRs: pin.PodCIDRs})
	}
	return true
}

// pinned returns with what a remote has joined.
func (c *claims) pinned(name string) (pin Pin, found bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	pin, found = c.pins[name]
	return pin, found
}

// besides are the pod CIDRs that the nodes of pinned remotes declare beside those that these have joined
// with, by remote.
func (c *claims) besides() map[string][]netip.Prefix {
	c.mu.RLock()
	defer c.mu.RUnlock()
	all := map[string][]netip.Prefix{}
	for key, n := range c.nodes {
		pin, found := c.pins[key.Cluster]
		if !found || len(pin.PodCIDRs) == 0 || key.Name == "" {
			continue
		}
		for _, p := range n.podCIDRs {
			if !slices.ContainsFunc(pin.PodCIDRs, func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Overlaps(p) }) {
				all[key.Cluster] = append(all[key.Cluster], p)
			}
		}
	}
	for name, beside := range all {
		slices.SortFunc(beside, comparePrefixes)
		all[name] = slices.Compact(beside)
	}
	return all
}
