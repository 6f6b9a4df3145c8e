// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore/schema"
)

// How often the operator says that its rows are there: others hold definitions and services until
// they read it.
const (
	wordEvery = time.Minute
	wordHold  = 5 * time.Second // while anything is held
)

// word is what was said last.
type word struct {
	epoch string
	at    time.Time
}

// maxCompared is how many rows a word compares; etcd takes 128 comparisons.
const maxCompared = 100

// say tells the readers of owners' rows that the rows of the cluster stand in the store. It is said
// of what was just seen: a deletion by hand in between must not be taken for one of ours, so the word
// compares the rows, or a hundred of them spread over all, and is not written if one of them is not as
// it was.
func (k *keeper) say(ctx context.Context, f fence, v view) error {
	epoch, err := schema.DecodeEpoch(v.epoch.Value)
	if err != nil || len(k.mem.Held) > 0 {
		return nil // there is something to do first
	}
	every := wordEvery
	if k.anyHold() {
		every = wordHold
	}
	if epoch.ID == k.said.epoch && time.Since(k.said.at) < every {
		return nil
	}
	codec := schema.Owners()
	value, err := codec.Encode(schema.OperatorOwner, schema.Owner{Epoch: epoch.ID, Rows: len(v.rows), Complete: true})
	if err != nil {
		return fmt.Errorf("owners row: %w", err)
	}
	cmps := []clientv3.Cmp{f.holds(), clientv3.Compare(clientv3.ModRevision(schema.EpochKey), "=", v.epoch.ModRevision)}
	keys := slices.Sorted(maps.Keys(v.rows))
	for i := range min(len(keys), maxCompared) {
		key := keys[i*len(keys)/min(len(keys), maxCompared)]
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(key), "=", v.rows[key]))
	}
	res, err := k.client.Txn(ctx).If(cmps...).
		Then(clientv3.OpPut(codec.Prefix+codec.FormatKey(schema.OperatorOwner), string(value))).Commit()
	if err != nil {
		return fmt.Errorf("owners row: %w", err)
	}
	if res.Succeeded {
		k.said = word{epoch.ID, time.Now()}
	}
	return nil
}
