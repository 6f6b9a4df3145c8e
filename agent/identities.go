// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/weft-net/weft/agent/endpoint"
	"github.com/weft-net/weft/identity"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// identities gives endpoints the numbers of those of their labels that matter.
type identities struct {
	cluster   string
	filter    *identity.Filter
	allocator *identity.Allocator
	known     *state.Table[schema.IdentityKey, string]
	log       *slog.Logger
}

func (i *identities) labels(e endpoint.Endpoint) (identity.Labels, error) {
	all, err := identity.LabelsOf(e.Labels)
	if err != nil {
		return identity.Labels{}, err
	}
	return identity.ForEndpoint(i.cluster, e.Namespace, e.ServiceAccount, all, i.filter), nil
}

// Acquire implements endpoint.Identities.
func (i *identities) Acquire(ctx context.Context, e endpoint.Endpoint) (uint32, string, error) {
	labels, err := i.labels(e)
	if err != nil {
		return 0, "", err
	}
	set, old := labels.String(), identity.Unknown
	if set == e.IdentityLabels {
		old = identity.ID(e.Identity)
	}
	id, err := i.allocator.Restore(ctx, labels, old)
	return uint32(id), set, err
}

// Known implements endpoint.Identities: it looks through the mirror of our
// cluster's numbers, which happens only while the store is away.
func (i *identities) Known(e endpoint.Endpoint) (uint32, string, bool) {
	labels, err := i.labels(e)
	if err != nil {
		return 0, "", false
	}
	set := labels.String()
	for row := range i.known.All() {
		if row.Value == set && row.Key.Cluster == i.cluster {
			return row.Key.ID, set, true
		}
	}
	return 0, "", false
}

// Release implements endpoint.Identities.
func (i *identities) Release(set string) {
	labels, err := identity.ParseLabels(set)
	if err != nil {
		i.log.Error("label set cannot be released", "labels", set, "error", err)
		return
	}
	i.allocator.Release(labels)
}

// Bounds of how long renumbering waits before it tries again what failed.
const (
	renumberWait    = time.Second
	renumberWaitMax = 30 * time.Second
)

// renumbering tells endpoints when the number of their labels turns out to be
// another one.
type renumbering struct {
	held      *state.Table[string, identity.Holding]
	endpoints interface {
		Renumber(ctx context.Context, set string, number uint32) error
	}
	log *slog.Logger
}

// Run follows the numbers in use until ctx ends. A set whose endpoints could not
// all be told is tried again until they are, or it is not in use any more.
func (r *renumbering) Run(ctx context.Context) error {
	cursor := r.held.Cursor()
	defer cursor.Close()
	pending := map[string]identity.ID{} // not told yet
	pause := renumberWait
	for {
		for _, c := range cursor.Next(0) {
			if c.Deleted || c.Value.ID == identity.Unknown {
				delete(pending, c.Key)
				continue
			}
			pending[c.Key] = c.Value.ID
		}
		for set, id := range pending {
			if err := r.endpoints.Renumber(ctx, set, uint32(id)); err != nil {
				if ctx.Err() == nil {
					r.log.Error("endpoint not renumbered", "labels", set, "error", err)
				}
				continue
			}
			delete(pending, set)
		}
		wait, cancel := ctx, context.CancelFunc(func() {})
		if len(pending) > 0 {
			wait, cancel = context.WithTimeout(ctx, pause)
			pause = min(2*pause, renumberWaitMax)
		} else {
			pause = renumberWait
		}
		err := cursor.Wait(wait)
		over := wait.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !over:
			return fmt.Errorf("follow identities: %w", err)
		}
	}
}
