// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// All that an operator does it may do with its own certificate, but for compaction and
// defragmentation.
func TestOperator_RightsOfItsRole(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{CA: kvstoretest.NewCA(t, "ours"), Name: "server"})
	root := kvstoretest.NewClient(t, s.ClientConfig())
	if _, err := kvstore.Init(t.Context(), root, kvstore.InitConfig{Cluster: "east", Nodes: []string{"n1"}}); err != nil {
		t.Fatal(err)
	}
	put(t, root, schema.Definitions(), webKey, web("true"))
	put(t, root, schema.Definitions(), schema.DefinitionKey{Namespace: "default", Name: "other"}, web("false"))
	put(t, root, schema.Nodes(scope), schema.NodeKey{Cluster: "east", Name: "n1"}, schema.Node{Name: "n1", Cluster: "east", ClusterID: 1})
	put(t, root, schema.Endpoints(scope), podKey, pod("10.1.1.5"))

	cfg := testConfig("one")
	cfg.StateDir, cfg.LeaderTTL = t.TempDir(), 15*time.Second
	cfg.IdentityGC, cfg.GoneAfter = 50*time.Millisecond, 50*time.Millisecond
	var log kvstoretest.LogBuffer
	o, err := New(cfg, s.ClientAs(kvstore.UserOperator("east")), nil, prometheus.NewRegistry(), log.Logger())
	if err != nil {
		t.Fatal(err)
	}
	kvstoretest.Go(t, o.Run)
	want(t, root, exports+"default/web", "10.1.1.5")
	want(t, root, theWord, "complete")

	// By hand; and rows of a node that is gone, and a number that nobody uses.
	put(t, root, schema.Owners(), "n1", schema.Owner{Epoch: storedEpoch(t, root), Complete: true})
	if _, err := root.Etcd().Delete(t.Context(), schema.DefinitionsPrefix, clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	want(t, root, definition+"web", "web")
	if _, err := root.Delete(t.Context(), schema.EpochKey); err != nil {
		t.Fatal(err)
	}
	want(t, root, schema.EpochKey, "epoch")
	kvstoretest.Eventually(t, func() string { // the node speaks of the new epoch
		if id := storedEpoch(t, root); id != "" {
			put(t, root, schema.Owners(), "n1", schema.Owner{Epoch: id, Complete: true})
		}
		if err := o.check(t.Context()); err != nil {
			return err.Error()
		}
		return ""
	})
	s.Put(root, schema.EndpointsPrefix+"gone/1", "{}")
	s.Put(root, schema.OwnersPrefix+"gone", "{}")
	s.Put(root, schema.IPsPrefix+"10.1.9.9", `{"IP":"10.1.9.9","HostIP":"192.0.2.9","ID":65999}`)
	s.Put(root, schema.IdentityLocksPrefix+"k8s:app=web;/1", "")
	s.Put(root, schema.IdentityIDsPrefix+"65999", "k8s:gone;")
	for _, key := range []string{
		schema.EndpointsPrefix + "gone/1", schema.OwnersPrefix + "gone", schema.IPsPrefix + "10.1.9.9",
		schema.IdentityLocksPrefix + "k8s:app=web;/1", schema.IdentityIDsPrefix + "65999",
	} {
		want(t, root, key, "")
	}
	want(t, root, schema.RestingPrefix+"65999", "k8s:gone;")
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, string(kvstore.ReasonUnauthorised)) {
			t.Errorf("it may not: %s", line)
		}
	}

	// The history is the administrator's.
	f := *o.keeper.term()
	compacted := prometheus.NewCounter(prometheus.CounterOpts{Name: "n"})
	turns := func(admin *kvstore.Client) error {
		k := &compactor{client: o.client, admin: admin, cfg: cfg, log: o.log, fence: f, done: compacted}
		now := time.Now()
		return errors.Join(k.turn(t.Context(), now), k.turn(t.Context(), now.Add(time.Hour)))
	}
	if err := turns(nil); err == nil || !strings.Contains(err.Error(), "etcd-admin") {
		t.Errorf("compaction with the operator's certificate: %v, want to be told of etcd-admin", err)
	}
	if err := turns(s.ClientAs(kvstore.UserAdmin("east"))); err != nil || testutil.ToFloat64(compacted) != 1 {
		t.Error(fmt.Errorf("compaction with the administrator's: %w", err))
	}
}
