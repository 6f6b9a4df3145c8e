// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// heartbeat puts the time under the heartbeat's key. Readers judge by when it arrives, not by what
// it says, so their clocks and ours may differ.
func (o *Operator) heartbeat(ctx context.Context, f fence) error {
	session := kvstore.NewSession(o.client, kvstore.SessionConfig{Revoke: true}, o.log)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return session.Run(ctx) })
	g.Go(func() error {
		return every(ctx, o.cfg.Heartbeat, func() {
			if err := o.beat(ctx, session, f); err != nil {
				o.metrics.heartbeatErrors.Inc()
				o.log.Warn("heartbeat not written", "reason", err.Error())
			}
		})
	})
	return g.Wait()
}

func (o *Operator) beat(ctx context.Context, session *kvstore.Session, f fence) error {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Heartbeat)
	defer cancel()
	lease, err := session.Wait(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	res, err := o.client.Txn(ctx).If(f.holds()).
		Then(clientv3.OpPut(schema.HeartbeatKey, string(schema.EncodeTime(now)), clientv3.WithLease(lease.ID))).Commit()
	if err != nil {
		session.Lost(lease.Generation)
		return err
	}
	if !res.Succeeded {
		return errNotLeading
	}
	o.metrics.heartbeat.Set(float64(now.Unix()))
	return nil
}

// publishConfig keeps what the cluster says about itself as it should be, whoever changes it.
func (o *Operator) publishConfig(ctx context.Context, f fence) error {
	const local state.Source = "operator"
	table := state.NewTable[string]("cluster-config", state.Equal[schema.ClusterConfig])
	table.Put(local, 0, o.cfg.Cluster, schema.ClusterConfig{ID: o.cfg.ClusterID, MaxConnectedClusters: o.cfg.MaxClusters})
	table.MarkSynced(local)
	return kvstore.NewStore(o.client, nil, schema.ClusterConfigs(), table, kvstore.StoreConfig[string, schema.ClusterConfig]{
		Owns:    func(cluster string, _ schema.ClusterConfig) bool { return cluster == o.cfg.Cluster },
		Enforce: true, Fence: []clientv3.Cmp{f.holds()},
	}, o.log).Run(ctx)
}
