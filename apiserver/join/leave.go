// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"context"
	"errors"
	"fmt"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// Left is what ending a peering did on this side.
type Left struct {
	Cluster string
	// Refused tells whether the cluster was known and is refused from now on; Certificates how many of
	// its certificates are.
	Refused      bool
	Certificates int
	// Removed tells whether this machine had files of it.
	Removed bool
}

// Leave ends a peering on this side, in this order: the API servers refuse the cluster's name and its
// certificates and cut off its streams; then its client file goes, so that mirror and agents let go of
// its rows; then the key and the certificates go. It may be run again after any error.
func Leave(ctx context.Context, c *kvstore.Client, s Settings, name string) (Left, error) {
	left := Left{Cluster: name}
	if err := schema.CheckClusterName(name); err != nil {
		return left, fmt.Errorf("leave: %w", err)
	}
	p, err := ban(ctx, c, name)
	known := !errors.Is(err, ErrNoPeer)
	if err != nil && known {
		return left, fmt.Errorf("leave %s: %w", name, err)
	}
	left.Refused, left.Certificates = known, len(p.Issued)
	if s.MeshDir == "" {
		return left, nil
	}
	f := files{s.MeshDir, name}
	there, err := f.exists()
	if err != nil {
		return left, fmt.Errorf("leave %s: %w", name, err)
	}
	if !known {
		// Somebody has put the file there by hand, with certificates that are perhaps another's too.
		if there {
			return left, fmt.Errorf("leave %s: it did not join with a token; remove %s by hand: %w", name, f.client(), ErrNoPeer)
		}
		return left, fmt.Errorf("leave %s: %w", name, ErrNoPeer)
	}
	left.Removed = there
	return left, f.remove()
}
