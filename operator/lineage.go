// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// judge tells whether the store is the one that is remembered. Two puts are looked for as they were:
// the last heartbeat, which no other life of a store has at its revision, and the newest put among the
// rows that are kept. Where the second is proven all that is remembered was written to this store, so
// what is absent was deleted. That is asked at every look, and not only when a connection was lost.
func (k *keeper) judge(ctx context.Context, v view) (kvstore.Continuity, error) {
	m := &k.mem
	switch {
	case !k.known:
		return kvstore.ContinuityFirst, nil
	case v.clusterID != m.ClusterID, v.revision < m.Revision, m.Epoch != "" && string(v.epoch.Value) != m.Epoch:
		return kvstore.ContinuityBroken, nil
	}
	beat, err := k.prove(ctx, schema.HeartbeatKey, m.Witness)
	if err != nil || beat == kvstore.ContinuityBroken {
		return beat, err
	}
	if m.Newest.Revision == 0 {
		return beat, nil
	}
	return k.prove(ctx, m.Newest.Key, m.Newest)
}

// prove looks for one put. One that is compacted and written over since tells nothing.
func (k *keeper) prove(ctx context.Context, key string, w witness) (kvstore.Continuity, error) {
	if w.Revision == 0 {
		return kvstore.ContinuityUnproven, nil
	}
	res, err := k.client.Etcd().Get(ctx, key, clientv3.WithRev(w.Revision))
	compacted := errors.Is(err, rpctypes.ErrCompacted)
	if compacted {
		res, err = k.client.Etcd().Get(ctx, key)
	}
	switch {
	case errors.Is(err, rpctypes.ErrFutureRev):
		return kvstore.ContinuityBroken, nil
	case err != nil:
		return "", err
	case compacted && (len(res.Kvs) == 0 || res.Kvs[0].ModRevision > w.Revision):
		return kvstore.ContinuityUnproven, nil
	case len(res.Kvs) != 1 || res.Kvs[0].ModRevision != w.Revision || !bytes.Equal(res.Kvs[0].Value, w.Value):
		return kvstore.ContinuityBroken, nil
	}
	return kvstore.ContinuityProven, nil
}

// broken holds what is absent and sees that there is a new epoch. It returns false while there is
// none: then all stays as remembered, and the next turn tries again. What is held is on disk before
// the epoch is written, so a death between the two loses nothing.
func (k *keeper) broken(ctx context.Context, v view) (agreed bool, err error) {
	m := &k.mem
	if held, _ := k.hold(); !held {
		k.log.Warn("the store is not the one it was, holding", "revision", v.revision, "before", m.Revision,
			"epoch", string(v.epoch.Value))
		k.metrics.broken.Inc()
	}
	k.beginHold(v, holdLimit)
	k.save()
	renewed := v.epoch.Key != "" && string(v.epoch.Value) != m.Epoch
	if !renewed {
		f := k.term()
		if f == nil {
			return false, nil
		}
		return false, k.newEpoch(ctx, *f, v) // the next look sees it
	}
	m.Held = map[string]bool{}
	if epoch, err := schema.DecodeEpoch(v.epoch.Value); err == nil && v.restored == epoch.ID {
		// Another operator put back what it knew; what is absent now was deleted since, or was
		// never in a copy newer than ours.
		for key := range m.Rows {
			if _, there := v.rows[key]; !there {
				delete(m.Rows, key)
			}
		}
	}
	for key := range m.Rows {
		if _, there := v.rows[key]; !there {
			m.Held[key] = true
		}
	}
	k.mods = nil // revisions of another life
	return true, nil
}

// newEpoch writes an epoch if the one that was seen, or none, still stands.
func (k *keeper) newEpoch(ctx context.Context, f fence, v view) error {
	var random [16]byte
	rand.Read(random[:])
	b, err := schema.EncodeEpoch(schema.Epoch{ID: hex.EncodeToString(random[:]), Created: time.Now()})
	if err != nil {
		return err
	}
	res, err := k.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(schema.EpochKey), "=", v.epoch.ModRevision), f.holds()).
		Then(clientv3.OpPut(schema.EpochKey, string(b))).Commit()
	if err != nil {
		return fmt.Errorf("new epoch: %w", err)
	}
	if res.Succeeded {
		k.metrics.epochs.Inc()
		k.nudge()
		k.log.Info("new epoch written", "epoch", hex.EncodeToString(random[:]))
	}
	return nil
}
