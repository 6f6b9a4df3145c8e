// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// authorisation asks for the one row that every remote may read.
func (w *walk) authorisation(ctx context.Context) outcome {
	var err error
	if w.etcd, err = kvstore.New(w.client, slog.New(slog.DiscardHandler)); err != nil {
		return failed(err.Error(), "correct the client file")
	}
	if _, _, err = w.etcd.Get(ctx, schema.ClusterConfigPrefix+w.cfg.Cluster); err == nil {
		return good("our certificate's name may read " + schema.ClusterConfigPrefix + w.cfg.Cluster)
	}
	todo := "look at the log of " + w.cfg.Cluster + "'s API server"
	var at *kvstore.EndpointError
	if errors.As(err, &at) {
		switch at.Reason {
		case kvstore.ReasonUnauthorised:
			todo = "the certificate must be for a user remote-CLUSTER, and the client file must be called as the cluster whose server it names"
		case kvstore.ReasonClientCA:
			todo = "the certificate was signed by another cluster's authority: join again, or have " + w.cfg.Cluster + " sign one"
		case kvstore.ReasonClientCertificate:
			todo = "on " + w.cfg.Cluster + ": weft mesh peers (has this cluster left there?); then leave here, and join again"
		}
	}
	return failed(err.Error(), todo)
}

func (w *walk) heartbeat(ctx context.Context) outcome {
	const todo = "see that its operator runs: weft operator; it writes the heartbeat every minute, under a lease"
	kv, ok, err := w.etcd.Get(ctx, schema.HeartbeatKey)
	switch {
	case err != nil:
		return failed(err.Error(), todo)
	case !ok:
		return failed("there is none", todo)
	}
	at, err := schema.DecodeTime(schema.HeartbeatKey, kv.Value)
	if err != nil {
		return failed(err.Error(), todo)
	}
	return good(fmt.Sprintf("%s ago, by its clock", time.Since(at).Round(time.Second)))
}

func (w *walk) clusterConfig(ctx context.Context) outcome {
	codec := schema.ClusterConfigs()
	kv, ok, err := w.etcd.Get(ctx, codec.Prefix+w.cfg.Cluster)
	switch {
	case err != nil:
		return failed(err.Error(), "try again")
	case !ok:
		return failed("there is no "+codec.Prefix+w.cfg.Cluster,
			"see that its operator runs, and that the client file is called as the cluster calls itself")
	}
	if w.config, err = codec.Decode(w.cfg.Cluster, kv.Value); err != nil {
		return failed(err.Error(), "see who writes it")
	}
	found := fmt.Sprintf("id %d, a mesh of %d clusters", w.config.ID, max(w.config.MaxConnectedClusters, 255))
	if w.cfg.MaxClusters != 0 {
		if err := w.config.CheckRemote(w.cfg.MaxClusters); err != nil {
			return failed(found+": "+err.Error(), "the size of the mesh and the ids must fit in all clusters")
		}
	}
	if w.cfg.OwnID != 0 && w.config.ID == w.cfg.OwnID {
		return failed(found+": that is our id", "give one of the clusters another cluster-id")
	}
	return good(found)
}

// sync looks whether all kinds of rows are announced, where the remote does that, and counts them.
func (w *walk) sync(ctx context.Context) outcome {
	scope := schema.Scope{Cluster: w.cfg.Cluster, ClusterID: w.config.ID, MaxClusters: w.cfg.MaxClusters, Cached: w.config.Cached}
	var found []string
	for _, r := range []struct {
		resource schema.Resource
		prefix   string
	}{
		{schema.ResourceNodes, schema.Nodes(scope).Prefix},
		{schema.ResourceIdentities, schema.Identities(scope).Prefix},
		{schema.ResourceIPs, schema.IPs(scope).Prefix},
		{schema.ResourceServices, schema.Services(scope).Prefix},
	} {
		if w.config.SyncedCanaries {
			key := schema.SyncedKey(w.cfg.Cluster, r.resource, w.config.Cached)
			if _, ok, err := w.etcd.Get(ctx, key); err != nil || !ok {
				return failed(fmt.Sprintf("no %s (%v)", key, err), "its writer has not written all "+string(r.resource)+" yet: see its operator, or its mirror")
			}
		}
		var resp *clientv3.GetResponse
		err := w.etcd.Do(ctx, "count "+r.prefix, func(ctx context.Context) (err error) {
			resp, err = w.etcd.Etcd().Get(ctx, r.prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
			return err
		})
		if err != nil {
			return failed(err.Error(), "the certificate must be for a user remote-CLUSTER")
		}
		found = append(found, fmt.Sprintf("%d %s", resp.Count, r.resource))
	}
	return good(strings.Join(found, ", "))
}
