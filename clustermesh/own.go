// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// OwnIPs judges the ip rows of our own cluster: a row belongs to the node that has the host it
// names, and must not be inside what another node declares. A row that is refused counts as
// one that cannot be read, so the one before it stays.
type OwnIPs struct {
	cluster string
	claims  *claims
	nodes   *state.Table[schema.NodeKey, schema.Node]
	again   relisting

	mu      sync.Mutex
	refused map[schema.IPKey]struct{} // now; at most maxNotes
}

func newOwnIPs(cluster string, c *claims, nodes *state.Table[schema.NodeKey, schema.Node], relist time.Duration) *OwnIPs {
	return &OwnIPs{cluster: cluster, claims: c, nodes: nodes, again: newRelisting(relist), refused: make(map[schema.IPKey]struct{})}
}

// OwnIPs returns the judge of our own ip rows.
func (m *Mesh) OwnIPs() *OwnIPs { return m.own }

// Judged is the codec of our ip rows with the judge behind it.
func (o *OwnIPs) Judged(codec schema.Codec[schema.IPKey, schema.IP]) schema.Codec[schema.IPKey, schema.IP] {
	parse, decode := codec.ParseKey, codec.Decode
	// A key that is seen again, if only to be deleted, is judged anew.
	codec.ParseKey = func(tail string) (schema.IPKey, error) {
		k, err := parse(tail)
		if err == nil {
			o.mu.Lock()
			delete(o.refused, k)
			o.mu.Unlock()
		}
		return k, err
	}
	codec.Decode = func(k schema.IPKey, b []byte) (schema.IP, error) {
		row, err := decode(k, b)
		if err != nil {
			return row, err
		}
		reason := o.claims.host(o.cluster, k.Prefix, row)
		if reason == "" {
			return row, nil
		}
		o.mu.Lock()
		if len(o.refused) < maxNotes {
			o.refused[k] = struct{}{}
		}
		o.mu.Unlock()
		return row, &schema.InvalidError{Key: codec.FormatKey(k), Reason: reason}
	}
	return codec
}

// Run follows our addresses with their watch, which has the judged codec, until ctx ends: after our
// nodes were listed, by which they are judged, and once more when nodes declare something else and
// rows are refused, for these may be right now. The mesh has to run.
func (o *OwnIPs) Run(ctx context.Context, nodes <-chan struct{}, ips *kvstore.Watch[schema.IPKey, schema.IP]) error {
	if err := o.claims.after(ctx, nodes, o.nodes); err != nil {
		return nil // ctx ended
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return ips.Run(ctx) })
	g.Go(func() error { return o.again.run(ctx, o.faults, ips.ListAgain) })
	return g.Wait()
}

func (o *OwnIPs) faults() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.refused)
}
