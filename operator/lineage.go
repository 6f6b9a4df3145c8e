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

// errHold means that the store may have lost rows, so nothing may be taken away.
var errHold = errors.New("the store may have lost rows, nothing is taken away until their owners are back")

// judge tells whether the store is the one that is remembered.
func (k *keeper) judge(ctx context.Context, v view) (kvstore.Continuity, error) {
	m := &k.mem
	switch {
	case !k.known:
		return kvstore.ContinuityFirst, nil
	case v.clusterID != m.ClusterID, v.revision < m.Revision, m.Epoch != "" && string(v.epoch.Value) != m.Epoch:
		return kvstore.ContinuityBroken, nil
	case m.Witness.Revision == 0:
		return kvstore.ContinuityUnproven, nil
	}
	var res *clientv3.GetResponse
	res, err := k.client.Etcd().Get(ctx, schema.HeartbeatKey, clientv3.WithRev(m.Witness.Revision))
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		now := v.heartbeat
		switch {
		case now.Key == "" || now.ModRevision > m.Witness.Revision:
			return kvstore.ContinuityUnproven, nil
		case now.ModRevision == m.Witness.Revision && bytes.Equal(now.Value, m.Witness.Value):
			return kvstore.ContinuityProven, nil
		}
		return kvstore.ContinuityBroken, nil
	case errors.Is(err, rpctypes.ErrFutureRev):
		return kvstore.ContinuityBroken, nil
	case err != nil:
		return "", err
	}
	if len(res.Kvs) != 1 || res.Kvs[0].ModRevision != m.Witness.Revision || !bytes.Equal(res.Kvs[0].Value, m.Witness.Value) {
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
	m.HoldUntil = time.Now().Add(holdLimit)
	k.setHolding(true)
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
		k.log.Info("new epoch written", "epoch", hex.EncodeToString(random[:]))
	}
	return nil
}

// endHold ends a hold when its time is over, or all nodes that the cluster had say that their rows
// stand in the store of this epoch.
func (k *keeper) endHold(v view) {
	m := &k.mem
	held, _ := k.hold()
	if !held {
		m.Nodes = len(v.nodes)
		return
	}
	confirmed := len(v.nodes) > 0 && len(v.nodes) >= m.Nodes
	for node := range v.nodes {
		confirmed = confirmed && v.confirming[node]
	}
	if (confirmed || !time.Now().Before(m.HoldUntil)) && len(m.Held) == 0 {
		m.HoldUntil = time.Time{}
		k.setHolding(false)
		k.log.Info("hold ended", "confirmed", confirmed, "nodes", len(v.nodes))
	}
}
