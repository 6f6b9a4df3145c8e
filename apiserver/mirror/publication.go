// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/clustermesh"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// publication keeps what stands of one remote, under one cluster id, equal to its copies.
type publication struct {
	id     uint32
	source state.Source
	tables map[schema.Resource]*state.Table[string, []byte]
	stores map[schema.Resource]*kvstore.Store[string, []byte]
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// newPublication begins to publish; g waits for it.
func newPublication(ctx context.Context, g *errgroup.Group, t *term, name string, c copied) *publication {
	p := &publication{
		id: c.id, source: clustermesh.SourceOf(name), tables: c.tables,
		stores: map[schema.Resource]*kvstore.Store[string, []byte]{},
	}
	ctx, p.cancel = context.WithCancel(ctx)
	for r, table := range c.tables {
		s := storeOf(t, passed(name, r), table)
		p.stores[r] = s
		p.done.Add(1)
		g.Go(func() error {
			defer p.done.Done()
			if err := s.Run(ctx); err != nil && ctx.Err() == nil {
				return err
			}
			return nil
		})
	}
	return p
}

// passed is the codec of bytes that are passed on as they are: they were checked when they were read.
func passed(cluster string, r schema.Resource) schema.Codec[string, []byte] {
	return schema.Codec[string, []byte]{
		Prefix:    schema.MirrorPrefix(cluster, r),
		FormatKey: func(tail string) string { return tail },
		ParseKey:  func(tail string) (string, error) { return tail, nil },
		Encode:    func(_ string, b []byte) ([]byte, error) { return b, nil },
		Decode:    func(_ string, b []byte) ([]byte, error) { return b, nil },
	}
}

// stop ends the publication and waits for it.
func (p *publication) stop() {
	p.cancel()
	p.done.Wait()
}

// settled are the resources of which all that the remote has stands, and nothing else.
func (p *publication) settled() map[schema.Resource]bool {
	out := map[schema.Resource]bool{}
	for r, s := range p.stores {
		// The table first: what comes later is pending in the store, or was not wanted yet.
		synced, want := p.tables[r].SyncedBy(p.source), p.tables[r].Len()
		if st := s.Status(); synced && st.Listed && st.Pending == 0 && st.Stale == 0 && st.Rows == want {
			out[r] = true
		}
	}
	return out
}

// pending is how many rows are not written yet; a nil publication has none.
func (p *publication) pending() (n int) {
	if p == nil {
		return 0
	}
	for _, s := range p.stores {
		st := s.Status()
		n += st.Pending + st.Stale
	}
	return n
}

// rows is how many rows the copies have.
func (p *publication) rows() (n int) {
	for _, t := range p.tables {
		n += t.Len()
	}
	return n
}
