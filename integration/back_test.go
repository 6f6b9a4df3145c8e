// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore/schema"
)

// ownedRows are the keys of the rows that endpoints, nodes and the operator of the cluster have in its
// store, without those of spares that are about to be deleted.
func (t *trial) ownedRows() map[string]bool {
	t.m.t.Helper()
	rows := map[string]bool{}
	// Rows that somebody owns and puts back when they are lost.
	for _, prefix := range []string{
		schema.NodesPrefix, schema.IPsPrefix, schema.IdentityIDsPrefix, schema.IdentityValuesPrefix, schema.ServicesPrefix,
		schema.ClusterConfigPrefix, schema.EndpointsPrefix, schema.DefinitionsPrefix, schema.VIPsPrefix,
	} {
		got, err := storeRows(t.m.t.Context(), t.m.client(t.cluster), prefix)
		if err != nil {
			t.m.t.Fatal(err)
		}
		for key := range got {
			rows[prefix+key] = true
		}
	}
	for _, p := range t.spares {
		delete(rows, schema.EndpointsPrefix+schema.EndpointKey{Node: p.Node, ID: p.ID}.String())
		for _, addr := range p.Addresses {
			delete(rows, schema.IPsPrefix+addr.String())
		}
	}
	// The set of the spares is used by nobody else, so that it may go with them.
	for number := range t.numbers {
		delete(rows, schema.IdentityMasterKey(number))
	}
	for key := range rows {
		if strings.Contains(key, spareLabel) {
			delete(rows, key)
		}
	}
	return rows
}

// waitBack waits until the store has all rows, and every node has said in it that its own are there,
// and returns how long that took.
func (t *trial) waitBack(rows map[string]bool) time.Duration {
	t.m.t.Helper()
	begin := time.Now()
	missing := ""
	defer func() {
		if t.m.t.Failed() {
			t.m.t.Logf("the store of %s lacks %s", t.cluster.Name, missing)
		}
	}()
	waitFor(t.m.t, "the rows of "+t.cluster.Name, func() bool {
		missing = t.missing(rows)
		return missing == ""
	})
	return time.Since(begin)
}

// missing names one row that the store does not have, or a node that has not spoken.
func (t *trial) missing(rows map[string]bool) string {
	ctx, cancel := context.WithTimeout(t.m.t.Context(), storeAnswer)
	defer cancel()
	client := t.m.client(t.cluster)
	got, err := client.Txn(ctx).Then(
		clientv3.OpGet("cilium/", clientv3.WithPrefix(), clientv3.WithKeysOnly()),
		clientv3.OpGet("weft/", clientv3.WithPrefix()),
	).Commit()
	if err != nil {
		return err.Error()
	}
	there := map[string][]byte{}
	for _, r := range got.Responses {
		for _, kv := range r.GetResponseRange().Kvs {
			there[string(kv.Key)] = kv.Value
		}
	}
	for key := range rows {
		if _, is := there[key]; !is {
			return key
		}
	}
	epoch, err := schema.DecodeEpoch(there[schema.EpochKey])
	if err != nil {
		return err.Error()
	}
	owners := schema.Owners()
	for _, n := range t.cluster.Nodes {
		o, err := owners.Decode(n.Name, there[owners.Prefix+owners.FormatKey(n.Name)])
		if err != nil || !o.Complete || o.Epoch != epoch.ID {
			return "the word of " + n.Name
		}
	}
	return ""
}
